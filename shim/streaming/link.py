"""A connection as the protocols above it see it: bytes in by callback, bytes out with a place to wait when the peer is slow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

HIGH_WATER = 256 * 1024
"""Bytes waiting to be sent at which `drain` begins to wait."""
ABUSE_LIMIT = 8 * 1024 * 1024
"""Bytes waiting to be sent at which the connection is dropped: only answers to a peer that does not read grow so far."""
LINGER_SECONDS = 5.0
"""How long, at the end, the peer has to close its side: closing at once could cost it what is still on its way."""


class ConnectionGone(ConnectionError):  # noqa: N818 - an event as much as an error
    """The peer has gone, or the stream was reset."""


class ByteLink(Protocol):
    """What carries a multiplexed protocol: a socket, or a WebSocket that tunnels one."""

    on_data: Callable[[bytes], None]
    gone: asyncio.Future[None]

    def write(self, data: bytes) -> None:
        """Send; a link that is gone drops it."""
        ...

    async def drain(self) -> None:
        """Wait until little is left to send; raise ConnectionGone."""
        ...

    def hold(self, *, wanted: bool) -> None:
        """Stop to take bytes from the peer, or go on."""
        ...

    async def finish(self) -> None:
        """Send what is left, let the peer close, and close."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class SocketLink(asyncio.Protocol):
    """A socket after its HTTP upgrade."""

    def __init__(self, transport: asyncio.Transport) -> None:
        """Take over `transport` from the protocol it had."""
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._waiter: asyncio.Future[None] | None = None
        self._full = False
        self._held = False
        self._early: list[bytes] = []
        self.on_data: Callable[[bytes], None] = self._early.append
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self.active_at = self._loop.time()
        transport.set_write_buffer_limits(high=HIGH_WATER)
        transport.set_protocol(self)

    def begin(self, on_data: Callable[[bytes], None], early: bytes = b"") -> None:
        """Hand bytes to `on_data` from now on, those that came before first."""
        kept, self._early = [early, *self._early], []
        self.on_data = on_data
        for data in kept:
            if data:
                on_data(data)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self.active_at = self._loop.time()
        self.on_data(data)

    def eof_received(self) -> bool:
        """See asyncio.Protocol: none of the protocols here knows a half-closed socket."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        del exc
        if not self.gone.done():
            self.gone.set_result(None)
        self._wake()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._full = True

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._full = False
        self.active_at = self._loop.time()
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def write(self, data: bytes) -> None:
        """See ByteLink."""
        if self.gone.done() or not data:
            return
        self.active_at = self._loop.time()
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > ABUSE_LIMIT:
            self.abort()

    async def drain(self) -> None:
        """See ByteLink."""
        while self._full and not self.gone.done():
            if self._waiter is None:
                self._waiter = self._loop.create_future()
            await asyncio.shield(self._waiter)
        if self.gone.done():
            raise ConnectionGone("the client has gone")

    def hold(self, *, wanted: bool) -> None:
        """See ByteLink."""
        if wanted == self._held or self.gone.done():
            return
        self._held = wanted
        if wanted:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    async def finish(self) -> None:
        """See ByteLink."""
        self.on_data = _drop
        self.hold(wanted=False)
        await asyncio.wait([self.gone], timeout=LINGER_SECONDS)
        self._transport.close()
        await asyncio.wait([self.gone], timeout=LINGER_SECONDS)
        self.abort()

    def shut(self) -> None:
        """Close as soon as what was written is sent, without waiting."""
        self._transport.close()

    def abort(self) -> None:
        """See ByteLink."""
        if not self.gone.done():
            self._transport.abort()


def _drop(_data: bytes) -> None:
    """Forget what comes after the end."""
