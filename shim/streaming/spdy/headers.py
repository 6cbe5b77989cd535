"""Header blocks: name and value pairs, compressed with one zlib stream a direction for the life of the connection."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from shim.streaming.spdy.dictionary import DICTIONARY
from shim.streaming.spdy.errors import LocalError, ProtocolError

if TYPE_CHECKING:
    from shim.streaming.spdy.events import Headers

BLOCK_LIMIT = 64 * 1024
"""Bytes of a header block before compression: more is a bomb."""
_WINDOW_BITS = 11
"""The smallest window that holds the dictionary: a connection sends a few short blocks, and zlib takes 256 KiB otherwise."""


class HeaderWriter:
    """Compresses the blocks of one direction, in order."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(wbits=_WINDOW_BITS, memLevel=1, zdict=DICTIONARY)

    def pack(self, headers: Headers) -> bytes:
        """Give the compressed block; raise LocalError for headers the protocol has no form for."""
        block = _block(headers)
        if len(block) > BLOCK_LIMIT:
            raise LocalError(f"headers of {len(block)} bytes are more than {BLOCK_LIMIT}")
        return self._zlib.compress(block) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class HeaderReader:
    """Decompresses the blocks of one direction, in order; every block must be given, also that of a refused stream."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)

    def unpack(self, data: bytes) -> Headers:
        """Give the headers; raise ProtocolError for anything malformed and for more than BLOCK_LIMIT bytes."""
        try:
            block = self._zlib.decompress(data, BLOCK_LIMIT + 1)
        except zlib.error as error:
            raise ProtocolError(f"a header block cannot be decompressed: {error}") from error
        if len(block) > BLOCK_LIMIT or self._zlib.unconsumed_tail:
            raise ProtocolError(f"a header block is longer than {BLOCK_LIMIT} bytes")
        if self._zlib.unused_data:
            raise ProtocolError("a header block ends the compressed stream")
        return _parse(block)


def _block(headers: Headers) -> bytes:
    values: dict[str, list[str]] = {}
    for name, value in headers:
        if not name or name != name.lower():
            raise LocalError(f"header name {name!r} is not in lower case")
        if "\0" in name or "\0" in value:
            raise LocalError(f"header {name!r} contains a zero byte")
        values.setdefault(name, []).append(value)
    out = [len(values).to_bytes(4, "big")]
    for name, several in values.items():
        for text in (name, "\0".join(several)):
            try:
                word = text.encode("latin-1")
            except UnicodeEncodeError:
                raise LocalError(f"header {name!r} has a character beyond latin-1") from None
            out += (len(word).to_bytes(4, "big"), word)
    return b"".join(out)


class _Cursor:
    """A place in a block; every step is checked against its end."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._at = 0

    def number(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def word(self) -> str:
        return self._take(self.number()).decode("latin-1")

    def _take(self, size: int) -> bytes:
        part = self._block[self._at : self._at + size]
        if len(part) < size:
            raise ProtocolError("a header block ends within a header")
        self._at += size
        return part

    @property
    def done(self) -> bool:
        return self._at == len(self._block)


def _parse(block: bytes) -> Headers:
    cursor = _Cursor(block)
    count = cursor.number()
    if count > len(block) // 8:
        raise ProtocolError(f"a header block of {len(block)} bytes claims {count} headers")
    values: dict[str, str] = {}
    for _ in range(count):
        name = cursor.word()
        if not name or name != name.lower():
            raise ProtocolError(f"header name {name[:100]!r} is not in lower case")
        if name in values:
            raise ProtocolError(f"header {name[:100]!r} comes twice")
        values[name] = cursor.word()
    if not cursor.done:
        raise ProtocolError("bytes follow the last header of a block")
    return tuple((name, value) for name, joined in values.items() for value in joined.split("\0"))
