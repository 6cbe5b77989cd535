"""Network configurations: from files to frozen values.

A directory holds *.conflist (a list of plugins), and *.conf or *.json (one plugin, wrapped into a list of one). The first in
lexical order is the node's network. A file that cannot be used is an error that names the file and the JSON pointer; it is
not skipped, because the next file may describe a quite different network.

Source: CNI specification 1.1 section 1, and the file conventions of its reference library.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cni import version as versions
from cni import wire
from cni.errors import ConfigFault, Malformed, VersionFault

if TYPE_CHECKING:
    from collections.abc import Mapping

SUFFIXES = (".conf", ".conflist", ".json")
MAX_FILE_BYTES = 1 << 20
MAX_PLUGINS = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginConfig:
    """One plugin of a list; `document` is its own JSON object, which only the plugin understands fully."""

    type: str
    document: Mapping[str, Any]
    capabilities: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkList:
    """A network: its plugins in the order of ADD, and the protocol versions in which they may be spoken to."""

    name: str
    versions: tuple[str, ...]
    plugins: tuple[PluginConfig, ...]
    disable_check: bool = False
    disable_gc: bool = False
    source: str = ""

    def to_json(self) -> dict[str, Any]:
        """Give the list as one conflist document, inlined plugins and all."""
        return {
            "cniVersion": self.versions[0],
            "cniVersions": list(self.versions),
            "name": self.name,
            "disableCheck": self.disable_check,
            "disableGC": self.disable_gc,
            "loadOnlyInlinedPlugins": True,
            "plugins": [dict(plugin.document) for plugin in self.plugins],
        }


def load_directory(directory: str) -> NetworkList:
    """Load the first configuration of `directory` in lexical order; raise ConfigFault when it is unusable or none exists."""
    names = files(directory)
    if not names:
        raise ConfigFault(f"no network configuration ({', '.join('*' + suffix for suffix in SUFFIXES)}) found", file=directory)
    return load_file(os.path.join(directory, names[0]))


def files(directory: str) -> list[str]:
    """Give the names of the configuration files of `directory` in lexical order; none when it does not exist."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigFault(f"cannot be listed: {error.strerror}", file=directory) from error
    return sorted(name for name in names if name.endswith(SUFFIXES))


def load_file(path: str) -> NetworkList:
    """Load one configuration file, with the plugin files beside it; raise ConfigFault naming file and pointer."""
    document = _read(path)
    loaded = parse(document, source=path)
    if "plugins" not in document and not path.endswith(".conflist"):
        return loaded
    if not document.get("loadOnlyInlinedPlugins"):
        loaded = replace(loaded, plugins=(*loaded.plugins, *_plugin_files(path, loaded.name)))
    if not loaded.plugins:
        raise ConfigFault("names no plugin", file=path, pointer="/plugins")
    return loaded


def parse(document: Any, *, source: str = "") -> NetworkList:
    """Read a conflist, or a single plugin's configuration, from JSON values; raise ConfigFault naming the pointer.

    A list may come without plugins: they may lie in files (see load_file).
    """
    try:
        return _parse(wire.mapping(document, ""), source)
    except Malformed as fault:
        raise ConfigFault(fault.reason, file=source, pointer=fault.pointer) from None


def _parse(document: Mapping[str, Any], source: str) -> NetworkList:
    name = wire.text(document, "name")
    if not _NAME.fullmatch(name):
        raise Malformed("must begin with a letter or digit and hold only letters, digits, '_', '.' and '-'", "/name")
    is_list = "plugins" in document or source.endswith(".conflist")
    plugins = wire.each(document, "plugins", _plugin) if is_list else (_plugin(document, ""),)
    if len(plugins) > MAX_PLUGINS:
        raise Malformed(f"holds more than {MAX_PLUGINS} plugins", "/plugins")
    return NetworkList(
        name=name,
        versions=_versions(document),
        plugins=plugins,
        disable_check=_loose_flag(document, "disableCheck"),
        disable_gc=_loose_flag(document, "disableGC"),
        source=source,
    )


def _plugin(document: Mapping[str, Any], pointer: str) -> PluginConfig:
    kind = wire.text(document, "type", pointer)
    if not kind or "/" in kind or kind in {".", ".."}:
        raise Malformed("must name a plugin, without a path", f"{pointer}/type")
    capabilities = wire.mapping(document.get("capabilities") or {}, f"{pointer}/capabilities")
    granted = frozenset(key for key in capabilities if wire.flag(capabilities, key, f"{pointer}/capabilities"))
    ipam = wire.mapping(document.get("ipam") or {}, f"{pointer}/ipam")
    if "/" in wire.text(ipam, "type", f"{pointer}/ipam"):
        raise Malformed("must name a plugin, without a path", f"{pointer}/ipam/type")
    return PluginConfig(type=kind, document=document, capabilities=granted)


def _versions(document: Mapping[str, Any]) -> tuple[str, ...]:
    offered = wire.strings(document, "cniVersions")
    stated = wire.text(document, "cniVersion")
    if stated and stated not in offered:
        offered = (*offered, stated)
    for n, version in enumerate(offered):
        try:
            versions.parse(version)
        except VersionFault as fault:
            pointer = "/cniVersion" if version == stated else f"/cniVersions/{n}"
            raise Malformed(fault.msg, pointer) from None
    return offered or (versions.UNSTATED,)


def _loose_flag(document: Mapping[str, Any], key: str) -> bool:
    """Read a boolean that early configurations wrote as a string."""
    value = document.get(key)
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    return wire.flag(document, key)


def _plugin_files(path: str, name: str) -> list[PluginConfig]:
    directory = os.path.join(os.path.dirname(path), name)
    found = []
    for entry in (entry for entry in files(directory) if entry.endswith(".conf")) if os.path.isdir(directory) else ():
        file = os.path.join(directory, entry)
        try:
            found.append(_plugin(wire.mapping(_read(file), ""), ""))
        except Malformed as fault:
            raise ConfigFault(fault.reason, file=file, pointer=fault.pointer) from None
    return found


def _read(path: str) -> Any:
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigFault(f"cannot be read: {error.strerror}", file=path) from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigFault(f"is larger than {MAX_FILE_BYTES} bytes", file=path)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigFault(f"is not json: {error}", file=path) from None
    if not isinstance(document, dict):
        raise ConfigFault("must be a json object", file=path)
    return document
