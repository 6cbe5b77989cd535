"""Compressed bytes in, hashed as they come; plain bytes out, never more than asked for.

A decompressor that is asked for n bytes gives at most n, whatever the input claims: a bomb costs time that is counted,
not memory. What the bytes are is decided by their magic, because media types lie.
"""

from __future__ import annotations

import hashlib
import os
from typing import IO, Protocol, cast

import zstandard
from isal import isal_zlib

from shim.errors import FailedPrecondition
from shim.image.unpack.magic import GZIP_MAGIC, is_zstd

READ_SIZE = 256 * 1024
MAX_ZSTD_WINDOW = 128 * 1024 * 1024
"""Bytes of history a zstd frame may ask for (what `zstd --long=27` writes)."""


class Reader(Protocol):
    """Anything that gives at most n bytes, b"" at the end."""

    def read(self, size: int = ..., /) -> bytes:
        """Give 1 to `size` bytes, b"" at the end."""


class Source:
    """The bytes of a descriptor: all that a pipe brings, or `length` bytes of a file from `offset` on."""

    def __init__(self, fd: int, *, algorithm: str = "sha256", offset: int | None = None, length: int = 0) -> None:
        self._fd = fd
        self._offset = offset
        self._left = length
        self._ahead = b""
        self.hash = hashlib.new(algorithm)
        self.count = 0

    def read(self, size: int = READ_SIZE, /) -> bytes:
        """Give up to `size` bytes, hashing them."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        if self._offset is None:
            data = os.read(self._fd, size)
        else:
            data = os.pread(self._fd, min(size, self._left), self._offset)
            self._offset += len(data)
            self._left -= len(data)
        self.hash.update(data)
        self.count += len(data)
        return data

    def peek(self, size: int) -> bytes:
        """Give the next `size` bytes (fewer at the end) without consuming them."""
        ahead = b""
        while len(ahead) < size and (more := self.read(size - len(ahead))):
            ahead += more
        self._ahead = ahead
        return ahead

    def drain(self) -> None:
        """Read to the end, so that the hash covers everything."""
        while self.read():
            pass

    @property
    def digest(self) -> str:
        """The digest of what was read so far."""
        return f"{self.hash.name}:{self.hash.hexdigest()}"


class GzipStream:
    """The members of a gzip file, one after the other (RFC 1952, 2.2); zero padding after the last is allowed."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._inflate = isal_zlib.decompressobj(31)
        self._input = b""

    def read(self, size: int = READ_SIZE, /) -> bytes:
        """Give up to `size` plain bytes; raise FailedPrecondition for a damaged or truncated stream."""
        while True:
            if self._inflate.eof and not self._next_member():
                return b""
            if not self._input:
                self._input = self._source.read()
                if not self._input:
                    raise FailedPrecondition("the gzip stream ends too early")
            try:
                data: bytes = self._inflate.decompress(self._input, size)
            except (isal_zlib.error, ValueError) as error:  # type: ignore[misc]  # the stub does not say it is an exception
                raise FailedPrecondition(f"the gzip stream is damaged: {error}") from error
            self._input = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            if data:
                return data

    def _next_member(self) -> bool:
        rest = self._input.lstrip(b"\0")
        while not rest and (more := self._source.read()):
            rest = more.lstrip(b"\0")
        if not rest:
            return False
        self._input = rest
        self._inflate = isal_zlib.decompressobj(31)
        return True


class ZstdStream:
    """The frames of a zstd file, skippable ones included (RFC 8878)."""

    def __init__(self, source: Source) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW)
        self._reader = decompressor.stream_reader(cast("IO[bytes]", source), read_size=READ_SIZE, read_across_frames=True)

    def read(self, size: int = READ_SIZE, /) -> bytes:
        """Give up to `size` plain bytes; raise FailedPrecondition for a damaged stream."""
        try:
            return self._reader.read(size)
        except zstandard.ZstdError as error:
            raise FailedPrecondition(f"the zstd stream is damaged: {error}") from error


def open_stream(source: Source) -> Reader:
    """Give the plain bytes of `source`, whichever of gzip, zstd or plain they are."""
    magic = source.peek(4)
    if magic.startswith(GZIP_MAGIC):
        return GzipStream(source)
    if is_zstd(magic):
        return ZstdStream(source)
    return source
