"""Sparse files in pax archives: only data travels, with a map of where it belongs (GNU tar manual, "Storing Sparse Files").

Versions 0.0 and 0.1 have the map in the extended header, 1.0 has it as text before the data. The old GNU header (type S) is
refused, as containerd refuses it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shim.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PREFIX = b"GNU.sparse."
MAP = PREFIX + b"map"
PAIRS = frozenset((PREFIX + b"offset", PREFIX + b"numbytes"))
"""Records of version 0.0, one pair for each piece of data."""
BLOCK = 512
MAX_MAP = 1024 * 1024
"""Bytes of a map that are believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a sparse file becomes: its size, and where its data lies (None: the data begins with the map)."""

    size: int
    extents: tuple[tuple[int, int], ...] | None


def layout(attributes: dict[bytes, bytes]) -> Layout | None:
    """Give the layout that pax records declare, None when the file is not sparse; raise FailedPrecondition."""
    if not any(key.startswith(PREFIX) for key in attributes):
        return None
    size = _number(attributes.get(PREFIX + b"realsize") or attributes.get(PREFIX + b"size") or b"")
    if attributes.get(PREFIX + b"major") == b"1" and attributes.get(PREFIX + b"minor") == b"0":
        return Layout(size=size, extents=None)
    numbers = [_number(text) for text in attributes.get(MAP, b"").split(b",") if text]
    return Layout(size=size, extents=_pairs(numbers, size))


def restore(fd: int, wanted: Layout, pieces: Iterable[memoryview]) -> None:
    """Write a file with its holes; raise FailedPrecondition when map and data do not belong together."""
    data = _Data(pieces)
    extents = _leading_map(data, wanted.size) if wanted.extents is None else wanted.extents
    for offset, length in extents:
        os.lseek(fd, offset, os.SEEK_SET)
        for piece in data.take(length):
            view = piece
            while view:
                view = view[os.write(fd, view) :]
    if any(len(piece) for piece in data.rest()):
        raise FailedPrecondition("a sparse file has more data than its map says")
    os.ftruncate(fd, wanted.size)


def _leading_map(data: _Data, size: int) -> tuple[tuple[int, int], ...]:
    """Read the map of version 1.0: decimal lines, the number of pairs first, filled up to a block."""
    text = b""
    wanted = 1
    while text.count(b"\n") < wanted:
        if len(text) >= MAX_MAP:
            raise FailedPrecondition(f"the map of a sparse file is larger than {MAX_MAP} bytes")
        text += b"".join(bytes(piece) for piece in data.take(BLOCK))
        if wanted == 1 and b"\n" in text:
            wanted = 1 + 2 * _number(text.partition(b"\n")[0])
    return _pairs([_number(line) for line in text.split(b"\n")[1:wanted]], size)


def _pairs(numbers: list[int], size: int) -> tuple[tuple[int, int], ...]:
    """Check that pieces follow each other within the file."""
    extents = tuple(zip(numbers[::2], numbers[1::2], strict=False))
    end = 0
    for offset, length in extents:
        if offset < end or offset + length > size:
            raise FailedPrecondition("the map of a sparse file has pieces that overlap, or lie outside the file")
        end = offset + length
    if len(numbers) % 2:
        raise FailedPrecondition("the map of a sparse file ends in the middle of a pair")
    return extents


def _number(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise FailedPrecondition("a sparse file has a malformed map or size")
    return int(text)


class _Data:
    """Exact amounts from pieces of any size."""

    def __init__(self, pieces: Iterable[memoryview]) -> None:
        self._pieces = iter(pieces)
        self._left = memoryview(b"")

    def take(self, size: int) -> Iterator[memoryview]:
        while size:
            if not self._left:
                self._left = next(self._pieces, memoryview(b""))
                if not self._left:
                    raise FailedPrecondition("a sparse file has less data than its map says")
            piece, self._left = self._left[:size], self._left[size:]
            size -= len(piece)
            yield piece

    def rest(self) -> Iterator[memoryview]:
        yield self._left
        yield from self._pieces
