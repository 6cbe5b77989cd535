"""Which plugin has set which field of which container: two plugins must not pull at the same thing."""

from __future__ import annotations

from shim.gen.nri.v1alpha1 import api_pb2 as nri
from shim.nri.errors import NriError

REMOVED = "-"
"""Mark of a removal: before a key in an adjustment, before a plugin's name in the table of owners."""


class Conflict(NriError):  # noqa: N818 - named after what it is
    """Two plugins want the same field."""


def split_mark(key: str) -> tuple[str, bool]:
    """Give a key without its mark, and whether it asks for a removal."""
    return (key[1:], True) if key.startswith(REMOVED) else (key, False)


class Owners:
    """The table, for one request."""

    def __init__(self) -> None:
        self._simple: dict[tuple[str, int], str] = {}
        self._compound: dict[tuple[str, int, str], str] = {}

    def claim(self, container: str, field: int, plugin: str, key: str | None = None) -> None:
        """Note that `plugin` sets a field, or the entry `key` of one; raise Conflict when another plugin has set it.

        A plugin that has removed what another has set may set it anew.
        """
        if key is None:
            self._check(self._simple.get((container, field)), field, plugin, "")
            self._simple[container, field] = plugin
        else:
            self._check(self._compound.get((container, field, key)), field, plugin, key)
            self._compound[container, field, key] = plugin

    def clear(self, container: str, field: int, plugin: str, key: str | None = None) -> None:
        """Note that `plugin` removes what was set: it alone may set it now."""
        if key is None:
            self._simple[container, field] = REMOVED + plugin
        else:
            self._compound[container, field, key] = REMOVED + plugin

    def share(self, container: str, field: int, plugin: str) -> None:
        """Note that `plugin` adds to a field that several may add to."""
        known = self._simple.get((container, field))
        self._simple[container, field] = f"{known},{plugin}" if known else plugin

    def message(self) -> nri.OwningPlugins:
        """Give the table as validators get it."""
        result = nri.OwningPlugins()
        for (container, field), plugin in self._simple.items():
            result.owners[container].simple[field] = plugin
        for (container, field, key), plugin in self._compound.items():
            result.owners[container].compound[field].owners[key] = plugin
        return result

    @staticmethod
    def _check(owner: str | None, field: int, plugin: str, key: str) -> None:
        if owner is None or owner.removeprefix(REMOVED) == plugin:
            return
        what = " ".join(filter(None, (nri.Field.Name(nri.Field.ValueType(field)), key)))
        raise Conflict(f"plugins {plugin!r} and {owner.removeprefix(REMOVED)!r} both want to set {what}")
