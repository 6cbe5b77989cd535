"""Refuse a request with a number that no value of its enum has, wherever in the message it stands.

proto3 keeps such numbers (language guide, "enumerations"): a client of a later version of the CRI means something by them, and
what it means is unknown. To read one as the enum's zero would give another namespace, another filter, another protocol than
was asked for. One look at every request serves all fields, those to come too.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from shim.errors import InvalidArgument

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor


def check_enums(request: Any) -> None:
    """Raise InvalidArgument naming the first field of the message that holds an unknown number."""
    _check(request, "")


def _check(message: Any, prefix: str) -> None:
    for name, known, repeated in _fields(message.DESCRIPTOR):
        if known is None and not repeated:
            if message.HasField(name):
                _check(getattr(message, name), f"{prefix}{name}.")
            continue
        values = getattr(message, name)
        for index, value in enumerate(values if repeated else (values,)):
            place = f"{prefix}{name}[{index}]" if repeated else f"{prefix}{name}"
            if known is None:
                _check(value, f"{place}.")
            elif value not in known:
                raise InvalidArgument(f"{place} {value} is unknown; this runtime knows {min(known)} to {max(known)}")


@cache
def _fields(message: Descriptor) -> tuple[tuple[str, frozenset[int] | None, bool], ...]:
    """Give the fields that are or hold enums: name, numbers (None: a message that holds some), and whether it is a list.

    Maps of the CRI have no enums in them, and its messages do not contain themselves.
    """
    found: list[tuple[str, frozenset[int] | None, bool]] = []
    for field in message.fields:
        inner = field.message_type
        if field.enum_type is not None:
            found.append((field.name, frozenset(value.number for value in field.enum_type.values), field.is_repeated))
        elif inner is not None and not inner.GetOptions().map_entry and _fields(inner):
            found.append((field.name, None, field.is_repeated))
    return tuple(found)
