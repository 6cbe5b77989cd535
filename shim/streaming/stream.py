"""One direction-aware channel of a connection, whatever multiplexes it: read, write, finish, reset."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from shim.streaming.link import ConnectionGone

if TYPE_CHECKING:
    from collections.abc import Mapping

WRITE_SIZE = 64 * 1024
"""Bytes that producers should write at once."""


class Carrier(Protocol):
    """What a stream asks of the connection it belongs to."""

    def consumed(self, stream: Stream, size: int) -> None:
        """Note that the user has taken bytes."""
        ...

    async def send(self, stream: Stream, data: bytes) -> None:
        """Send bytes, waiting while the peer is slow; raise ConnectionGone."""
        ...

    def finish(self, stream: Stream) -> None:
        """Tell the peer that no more comes."""
        ...

    def reset(self, stream: Stream) -> None:
        """End the stream in both directions."""
        ...


class Stream:
    """A stream. Bytes the user has not taken are counted in `kept`; its carrier holds the peer back when they grow."""

    def __init__(self, carrier: Carrier, number: int, headers: Mapping[str, str] | None = None) -> None:
        self._carrier = carrier
        self.number = number
        self.headers = dict(headers or {})
        self._chunks: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._ended = False
        self._cut = False
        self._finished = False
        self.kept = 0
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the peer has taken a stream of ours."""
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the peer reset the stream or the connection is gone."""

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer (the carrier calls this)."""
        if data and not self._ended:
            self.kept += len(data)
            self._chunks.append(data)
            self._arrived.set()

    def feed_end(self) -> None:
        """Note that the peer sends no more (the carrier calls this)."""
        self._ended = True
        self._arrived.set()

    def fail(self) -> None:
        """Note that the peer reset the stream or is gone (the carrier calls this)."""
        if not self.broken.done():
            self.broken.set_result(None)
        if not self._ended:  # after a proper end nothing is missing
            self._ended = self._cut = True
            self._release()
        self._arrived.set()

    async def read(self) -> bytes:
        """Give the next bytes, b"" after the last; when it broke instead of ending, raise ConnectionGone after the last."""
        while not self._chunks:
            if self._cut:
                raise ConnectionGone("the stream was reset")
            if self._ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = self._chunks.popleft()
        if self.kept:  # nothing holds a peer back any more when the stream was cut
            self.kept -= len(data)
            self._carrier.consumed(self, len(data))
        return data

    async def read_all(self, limit: int) -> bytes:
        """Give everything up to the end, at most `limit` bytes of it."""
        return await self._read_all(bytearray(), limit)

    async def read_rest(self, limit: int) -> bytes:
        """Give everything up to the end or the cut, likewise; some peers reset a stream after the last thing they say.

        Raises ConnectionGone when the cut came before anything was said.
        """
        parts = bytearray()
        try:
            return await self._read_all(parts, limit)
        except ConnectionGone:
            if not parts:
                raise
            return bytes(parts)

    async def _read_all(self, parts: bytearray, limit: int) -> bytes:
        while data := await self.read():
            parts += data[: max(0, limit - len(parts))]
        return bytes(parts)

    async def write(self, data: bytes) -> None:
        """Send; raise ConnectionGone."""
        if self.broken.done() or self._finished:
            raise ConnectionGone("the stream was reset")
        await self._carrier.send(self, data)

    def finish(self) -> None:
        """Tell the peer that no more comes; a second call does nothing."""
        if not self._finished and not self.broken.done():
            self._finished = True
            self._carrier.finish(self)

    def reset(self) -> None:
        """End it in both directions and drop what was not read; a second call does nothing."""
        if not self.broken.done():
            self._carrier.reset(self)
            self.fail()
        self.discard()

    def discard(self) -> None:
        """Drop what was not taken."""
        self._chunks.clear()
        self._release()

    def _release(self) -> None:
        """Let the peer go on, whatever becomes of what was not taken."""
        size, self.kept = self.kept, 0
        if size:
            self._carrier.consumed(self, size)
