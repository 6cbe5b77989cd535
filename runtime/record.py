"""Frozen values without the import cost of dataclasses.

`Record` gives what `@dataclass(frozen=True, slots=True, kw_only=True)` gives, and mypy checks it the same way, but a class
costs microseconds to define instead of a millisecond: `wherry-oci run` starts an interpreter each time and defines some
eighty of them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, dataclass_transform
else:

    def dataclass_transform(**_options: object) -> object:
        """Do nothing at run time: the decorator only informs the type checker."""
        return lambda decorated: decorated


class _Field:
    """The default of one field, kept aside because a slot and a class attribute cannot share a name."""

    __slots__ = ("default",)

    def __init__(self, default: object) -> None:
        self.default = default


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=True)
class RecordMeta(type):
    """Turn the annotations of a class body into slots, and their values into defaults."""

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> RecordMeta:
        """Collect the fields of the bases and of the body, in that order."""
        own = [field for field in body.get("__annotations__", {}) if not field.startswith("__")]
        fields: dict[str, _Field | None] = {}
        for base in bases:
            fields.update(getattr(base, "_fields_", {}))
        for field in own:
            fields[field] = _Field(body.pop(field)) if field in body else None
        body["__slots__"] = tuple(own)
        body["_fields_"] = fields
        return super().__new__(mcs, name, bases, body)


class Record(metaclass=RecordMeta):
    """Base of every frozen value of this package: keyword-only fields, equality and hash by value.

    Construction raises TypeError for an unknown or a missing field; assignment afterwards raises AttributeError.
    """

    if TYPE_CHECKING:
        _fields_: ClassVar[dict[str, _Field | None]]

    def __init__(self, **values: Any) -> None:
        for field, default in self._fields_.items():
            if field in values:
                object.__setattr__(self, field, values.pop(field))
            elif default is not None:
                object.__setattr__(self, field, default.default)
            else:
                raise TypeError(f"{type(self).__name__} needs the field {field!r}")
        if values:
            raise TypeError(f"{type(self).__name__} has no field {next(iter(values))!r}")

    def __setattr__(self, field: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{field} is frozen")

    def __delattr__(self, field: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{field} is frozen")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, field) == getattr(other, field) for field in self._fields_)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, field) for field in self._fields_))

    def __repr__(self) -> str:
        inner = ", ".join(f"{field}={getattr(self, field)!r}" for field in self._fields_)
        return f"{type(self).__name__}({inner})"


def as_dict(record: Record) -> dict[str, Any]:
    """Give the fields of `record` by name, one level deep."""
    return {field: getattr(record, field) for field in record._fields_}


if TYPE_CHECKING:
    from typing import TypeVar

    R = TypeVar("R", bound=Record)


def replace(record: R, **changes: object) -> R:
    """Give a copy of `record` with some fields changed; raise TypeError for an unknown one."""
    return type(record)(**(as_dict(record) | changes))
