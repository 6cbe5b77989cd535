"""A cursor over a parsed JSON document: every access checks the type and every fault names the JSON pointer (RFC 6901).

null counts as absent and unknown members are ignored, as in runc's decoder. Text with a NUL, or that no file name could
spell, is refused: it could not reach the kernel as written.
"""

from __future__ import annotations

from runtime.errors import SpecFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")

I64 = (-(1 << 63), (1 << 63) - 1)
U64 = (0, (1 << 64) - 1)
U32 = (0, (1 << 32) - 1)
U16 = (0, (1 << 16) - 1)
ID = (0, (1 << 32) - 2)
"""Users and groups: setresuid(2) takes the number after the last for "leave it", and the program would stay root."""
I32 = (-(1 << 31), (1 << 31) - 1)

_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "an integer", float: "a number"}


def kind(value: object) -> str:
    """Name the JSON type of a value."""
    return "null" if value is None else _KINDS.get(type(value), type(value).__name__)


def escape(key: str | int) -> str:
    """Spell one step of a JSON pointer."""
    return str(key).replace("~", "~0").replace("/", "~1")


def check_text(value: Any, pointer: str, document: str) -> str:
    """Give `value` when it is text the kernel can take; raise SpecFault otherwise."""
    if type(value) is not str:
        raise SpecFault(f"must be text, not {kind(value)}", pointer=pointer, document=document)
    if "\0" in value:
        raise SpecFault("holds a NUL byte, which ends text in the kernel", pointer=pointer, document=document)
    if not value.isascii():
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise SpecFault("holds half of a surrogate pair", pointer=pointer, document=document) from None
    return value


class Reader:
    """One object of the document and where it lies."""

    __slots__ = ("_key", "_parent", "document", "value")

    def __init__(self, value: Any, *, document: str = "config.json", parent: Reader | None = None, key: str | int = "") -> None:
        self.document = document
        self._parent = parent
        self._key = key
        if type(value) is not dict:
            raise SpecFault(f"must be an object, not {kind(value)}", pointer=self.pointer, document=document)
        self.value: dict[str, Any] = value

    @property
    def pointer(self) -> str:
        """Spell where the object lies; the document itself is the empty pointer."""
        return "" if self._parent is None else f"{self._parent.pointer}/{escape(self._key)}"

    def at(self, *keys: str | int) -> str:
        """Spell the pointer of something inside the object."""
        return self.pointer + "".join(f"/{escape(key)}" for key in keys)

    def fault(self, message: str, *keys: str | int) -> SpecFault:
        """Give (not raise) the fault of a member."""
        return SpecFault(message, pointer=self.at(*keys), document=self.document)

    def need(self, key: str) -> Any:
        """Give a member that must be there."""
        value = self.value.get(key)
        if value is None:
            raise self.fault("is missing", key)
        return value

    def text(self, key: str, default: str = "") -> str:
        """Give a member that is text."""
        value = self.value.get(key)
        return default if value is None else check_text(value, self.at(key), self.document)

    def need_text(self, key: str) -> str:
        """Give a member that is text, must be there and may not be empty."""
        value = check_text(self.need(key), self.at(key), self.document)
        if not value:
            raise self.fault("must not be empty", key)
        return value

    def flag(self, key: str) -> bool:
        """Give a member that is true or false; absent is false."""
        return self.maybe_flag(key) or False

    def maybe_flag(self, key: str) -> bool | None:
        """Give a member that is true, false or absent."""
        value = self.value.get(key)
        if value is not None and type(value) is not bool:
            raise self.fault(f"must be true or false, not {kind(value)}", key)
        return value

    def integer(self, key: str, bounds: tuple[int, int]) -> int | None:
        """Give a member that is an integer within bounds, or absent."""
        value = self.value.get(key)
        if value is None:
            return None
        if type(value) is not int:
            raise self.fault(f"must be an integer, not {kind(value)}", key)
        if not bounds[0] <= value <= bounds[1]:
            raise self.fault(f"{value} is not between {bounds[0]} and {bounds[1]}", key)
        return value

    def number(self, key: str, bounds: tuple[int, int]) -> int:
        """Give an integer member; absent is 0."""
        return self.integer(key, bounds) or 0

    def need_integer(self, key: str, bounds: tuple[int, int]) -> int:
        """Give an integer member that must be there."""
        self.need(key)
        return self.number(key, bounds)

    def items(self, key: str) -> list[Any]:
        """Give a member that is a list; absent is empty."""
        value = self.value.get(key)
        if value is None:
            return []
        if type(value) is not list:
            raise self.fault(f"must be a list, not {kind(value)}", key)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Give a member that is a list of texts."""
        values = self.items(key)
        for index, value in enumerate(values):
            if type(value) is not str or not value.isascii() or "\0" in value:
                check_text(value, self.at(key, index), self.document)
        return tuple(values)

    def integers(self, key: str, bounds: tuple[int, int]) -> tuple[int, ...]:
        """Give a member that is a list of integers within bounds."""
        values = self.items(key)
        for index, value in enumerate(values):
            if type(value) is not int:
                raise self.fault(f"must be an integer, not {kind(value)}", key, index)
            if not bounds[0] <= value <= bounds[1]:
                raise self.fault(f"{value} is not between {bounds[0]} and {bounds[1]}", key, index)
        return tuple(values)

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """Give a member that is a map of texts, as pairs in the document's order."""
        reader = self.child(key)
        if reader is None:
            return ()
        for name in reader.value:
            check_text(name, reader.at(name), self.document)
        return tuple((name, reader.text(name)) for name in reader.value)

    def child(self, key: str) -> Reader | None:
        """Give a cursor on a member that is an object, or None."""
        value = self.value.get(key)
        return None if value is None else Reader(value, document=self.document, parent=self, key=key)

    def part(self, key: str, read: Callable[[Reader], T], default: T) -> T:
        """Read a member that is an object with `read`; give `default` when it is absent."""
        reader = self.child(key)
        return default if reader is None else read(reader)

    def maybe(self, key: str, read: Callable[[Reader], T]) -> T | None:
        """Read a member that is an object with `read`; give None when it is absent."""
        reader = self.child(key)
        return None if reader is None else read(reader)

    def each(self, key: str, read: Callable[[Reader], T]) -> tuple[T, ...]:
        """Read a member that is a list of objects, each with `read`."""
        values = self.items(key)
        if not values:
            return ()
        holder = Reader({}, document=self.document, parent=self, key=key)
        return tuple(
            read(Reader(value, document=self.document, parent=holder, key=index)) for index, value in enumerate(values)
        )
