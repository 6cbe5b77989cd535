"""NRI's multiplexer: several connections on one socket (containerd/nri, pkg/net/multiplex).

A frame is a connection's number and the length of what follows, 4 bytes each and big-endian, then that many bytes. There is
no flow control and no close of one connection: the socket ends all of them. Connection 0 is reserved.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from shim.nri.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator

PLUGIN_SERVICE = 1
"""What the runtime asks of the plugin."""
RUNTIME_SERVICE = 2
"""What the plugin asks of the runtime."""
MOST = 10 + (4 << 20)
"""Bytes in a frame: the largest ttrpc message with its header."""
FIRST = 4096
"""Bytes of a message's first frame: a Go peer reads it into a buffer of that size, and the rest straight to its place."""

_HEADER = struct.Struct(">II")


class Demux:
    """Takes frames apart, however they arrive."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Give the complete frames as (connection, payload); raise ProtocolError for one that is too large."""
        self._data += data
        while len(self._data) >= _HEADER.size:
            connection, size = _HEADER.unpack_from(self._data)
            if size > MOST:
                raise ProtocolError(f"a multiplexer frame of {size} bytes is larger than {MOST}")
            end = _HEADER.size + size
            if len(self._data) < end:
                return
            payload = bytes(self._data[_HEADER.size : end])
            del self._data[:end]
            yield connection, payload


def frames(connection: int, message: bytes) -> bytes:
    """Give one ttrpc message as frames of a connection.

    A message takes two frames at most. A Go peer queues 256 unread frames and then gives up, and it refuses a frame that does
    not fit what it is reading into: cutting a message differently can end the connection.
    """
    head, rest = message[:FIRST], message[FIRST:]
    framed = _HEADER.pack(connection, len(head)) + head
    return framed + _HEADER.pack(connection, len(rest)) + rest if rest else framed
