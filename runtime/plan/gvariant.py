"""GVariant's text format, as far as properties of systemd units are written in it: scalars, and arrays of them.

Source: GLib's "GVariant Text Format"; signatures are those of the D-Bus specification.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KEYWORDS = {
    "boolean": "b", "byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "handle": "h", "int64": "x",
    "uint64": "t", "double": "d", "string": "s", "objectpath": "o", "signature": "g",
}  # fmt: skip
_BITS = {"y": (0, 8), "n": (1, 16), "q": (0, 16), "i": (1, 32), "u": (0, 32), "h": (1, 32), "x": (1, 64), "t": (0, 64)}
"""Integers: whether there is a sign, and how many bits."""
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_DEPTH = 8
_MOST = 4096
"""Characters a value may have: an annotation is written by people."""


def parse(text: str) -> tuple[str, Any]:
    """Give signature and value of what `text` says; raise ValueError that tells what is wrong."""
    if len(text) > _MOST:
        raise ValueError(f"it is longer than {_MOST} characters")
    reader = _Reader(text)
    found = reader.value("", 0)
    reader.space()
    if reader.at < len(text):
        raise ValueError(f"{text[reader.at :]!r} is left over")
    return found


class _Reader:
    """A text and how far it has been read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def space(self) -> str:
        """Skip space and give the next character, "" at the end."""
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def word(self) -> str:
        """Take characters up to one that ends a word."""
        start = self.at
        while self.at < len(self.text) and not self.text[self.at].isspace() and self.text[self.at] not in "[],'\"{}()<>":
            self.at += 1
        return self.text[start : self.at]

    def value(self, wanted: str, depth: int) -> tuple[str, Any]:
        """Take one value, of the signature `wanted` unless that is empty."""
        first = self.space()
        if first in ("'", '"'):
            return _typed(wanted or "s", self.string())
        if first == "[":
            return self.array(wanted, depth + 1)
        if first == "@":
            self.at += 1
            return self.value(_agreed(self.word(), wanted), depth)
        word = self.word()
        if word in _KEYWORDS:
            return self.value(_agreed(_KEYWORDS[word], wanted), depth)
        if not word:
            raise ValueError(f"{first!r} begins no value that is known here" if first else "it ends where a value should be")
        return _typed(wanted or _guess(word), word)

    def array(self, wanted: str, depth: int) -> tuple[str, Any]:
        """Take an array whose members have one type, which the first has when nothing says it."""
        if depth > _DEPTH:
            raise ValueError("it is nested too deep")
        if wanted and not wanted.startswith("a"):
            raise ValueError(f"an array is not of type {wanted!r}")
        element = wanted[1:]
        values: list[Any] = []
        self.at += 1
        while self.space() != "]":
            if values:
                if self.text[self.at] != ",":
                    raise ValueError("members of an array are parted by commas")
                self.at += 1
            element, value = self.value(element, depth)
            values.append(value)
            if not self.space():
                raise ValueError("an array does not end")
        self.at += 1
        if not element:
            raise ValueError("an empty array has no type: write @as []")
        return f"a{element}", values

    def string(self) -> str:
        """Take a string in quotes."""
        quote = self.text[self.at]
        self.at += 1
        parts: list[str] = []
        while (character := self.text[self.at : self.at + 1]) != quote:
            if not character:
                raise ValueError("a string does not end")
            self.at += 1
            parts.append(self.escape() if character == "\\" else character)
        self.at += 1
        return "".join(parts)

    def escape(self) -> str:
        """Take what follows a backslash."""
        letter = self.text[self.at : self.at + 1]
        self.at += 1
        digits = {"u": 4, "U": 8}.get(letter, 0)
        if digits:
            code = self.text[self.at : self.at + digits]
            self.at += digits
            if len(code) < digits or not all(digit in "0123456789abcdefABCDEF" for digit in code) or int(code, 16) > 0x10FFFF:
                raise ValueError(f"\\{letter}{code} is no character")
            return chr(int(code, 16))
        return _ESCAPES.get(letter, letter)


def _agreed(signature: str, wanted: str) -> str:
    if wanted and wanted != signature:
        raise ValueError(f"{signature!r} is not of type {wanted!r}")
    if signature.lstrip("a") not in _KEYWORDS.values():
        raise ValueError(f"values of type {signature!r} are not known here")
    return signature


def _guess(word: str) -> str:
    if word in ("true", "false"):
        return "b"
    return "d" if any(letter in word for letter in ".eE") and not word.lower().startswith("0x") else "i"


def _typed(signature: str, word: str) -> tuple[str, Any]:
    """Give a scalar of a type from its word, or a string from its content."""
    if signature in "sog":
        if "\0" in word:
            raise ValueError("a string holds no NUL")
        return signature, word
    if signature == "b" and word in ("true", "false"):
        return signature, word == "true"
    if signature == "d":
        value = float(word)
        if not abs(value) < float("inf"):
            raise ValueError(f"{word} is not finite")
        return signature, value
    if signature not in _BITS:
        raise ValueError(f"{word!r} is not of type {signature!r}")
    number = int(word, 0)
    signed, bits = _BITS[signature]
    if not -(1 << bits - 1) * signed <= number < 1 << bits - signed:
        raise ValueError(f"{word} does not fit into type {signature!r}")
    return signature, number
