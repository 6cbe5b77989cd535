"""ttrpc's framing (containerd/ttrpc, PROTOCOL.md), as far as calls without streams need it.

A message is the length of its data and a stream's number, 4 bytes each and big-endian, a type and flags, one byte each, and
the data. Streams have odd numbers, given by who calls, and each belongs to one call.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shim.nri.errors import Oversized

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST, RESPONSE, DATA = 1, 2, 3
REMOTE_OPEN = 2
"""Flag of a request that more data follows."""
MOST = 4 << 20
"""Bytes of data in a message."""

_HEADER = struct.Struct(">IIBB")


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `oversized` when its data was too large to be kept, and is empty here."""

    stream: int
    kind: int
    flags: int
    data: bytes
    oversized: bool = False


class Decoder:
    """Takes the bytes of one connection apart, however they arrive; keeps at most one message."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._skip = 0

    def feed(self, data: bytes) -> Iterator[Message]:
        """Give the complete messages; one that is too large is told at once, and its data passed over as it comes."""
        self._data += data
        while True:
            skipped = min(self._skip, len(self._data))
            self._skip -= skipped
            del self._data[:skipped]
            if len(self._data) < _HEADER.size:
                return
            size, stream, kind, flags = _HEADER.unpack_from(self._data)
            if size > MOST:
                del self._data[: _HEADER.size]
                self._skip = size
                yield Message(stream, kind, flags, b"", oversized=True)
                continue
            end = _HEADER.size + size
            if len(self._data) < end:
                return
            payload = bytes(self._data[_HEADER.size : end])
            del self._data[:end]
            yield Message(stream, kind, flags, payload)


def encode(stream: int, kind: int, data: bytes) -> bytes:
    """Give a message on the wire; raise Oversized."""
    if len(data) > MOST:
        raise Oversized(len(data), MOST)
    return _HEADER.pack(len(data), stream, kind, 0) + data
