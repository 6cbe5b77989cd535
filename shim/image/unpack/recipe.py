"""The recipe of a layer: everything of its tar but the contents of files, so that the very same tar can be made again.

A recipe is a zstd stream of records, little-endian:

    R  u32 length                 bytes      headers, padding and whatever else is not a file's content
    F  u64 size  u16 length       path       the content of a file, found in the layer's directory

Compressed layers are dropped after unpacking; `retar` gives the uncompressed tar back, byte for byte, and its digest is
checked while it is written. A tar that overwrites its own files cannot be kept this way: the recipe is then `lost`.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import zstandard

from shim.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shim.image.unpack.streams import Reader

_RAW = struct.Struct("<cI")
_FILE = struct.Struct("<cQH")
_FLUSH = 128 * 1024


class Recorder:
    """Writes a recipe to a descriptor while a layer is unpacked."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._compress = zstandard.ZstdCompressor(level=1).compressobj()
        self._raw: list[bytes] = []
        self._held = 0
        self.lost = ""
        """Why the tar cannot be made again, "" as long as it can."""

    def raw(self, data: bytes, /) -> None:
        """Keep bytes as they are."""
        self._raw.append(data)
        self._held += len(data)
        if self._held >= _FLUSH:
            self._flush()

    def file(self, path: bytes, size: int) -> None:
        """Say that the next `size` bytes are the content of `path`, relative to the layer's directory."""
        self._flush()
        self._write(_FILE.pack(b"F", size, len(path)) + path)

    def finish(self) -> None:
        """Write what is held; raise OSError."""
        self._flush()
        _write_all(self._fd, self._compress.flush())

    def _flush(self) -> None:
        if self._held:
            self._write(_RAW.pack(b"R", self._held) + b"".join(self._raw))
            self._raw.clear()
            self._held = 0

    def _write(self, data: bytes) -> None:
        if packed := self._compress.compress(data):
            _write_all(self._fd, packed)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def records(reader: Reader) -> Iterator[bytes | tuple[bytes, int]]:
    """Give the records of a recipe: bytes to copy, or (path, size) of a file; raise FailedPrecondition when damaged."""
    stream = _Exact(reader)
    while kind := stream.take(1, end_allowed=True):
        if kind == b"R":
            left = int.from_bytes(stream.take(4), "little")
            while left:
                data = stream.take(min(left, _FLUSH))
                left -= len(data)
                yield data
        elif kind == b"F":
            size, length = struct.unpack("<QH", stream.take(10))
            yield stream.take(length), size
        else:
            raise FailedPrecondition("the layer's recipe is damaged")


class _Exact:
    """Exact reads from a reader that gives what it has."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._buffer = b""

    def take(self, size: int, *, end_allowed: bool = False) -> bytes:
        while len(self._buffer) < size:
            more = self._reader.read(_FLUSH)
            if not more:
                if end_allowed and not self._buffer:
                    return b""
                raise FailedPrecondition("the layer's recipe ends too early")
            self._buffer += more
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data
