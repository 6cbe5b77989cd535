"""An NRI session on a socket: calls with a deadline, and calls of the peer served one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING, TypeVar, cast

import structlog
from google.protobuf.message import DecodeError

from shim.nri.errors import UNIMPLEMENTED, Gone, NriError, ProtocolError, Refused
from shim.nri.session import Answered, Called, Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    Serve = Callable[[Called], Awaitable[Message]]
    M = TypeVar("M", bound=Message)

log = structlog.get_logger()

UNKNOWN = 2
"""The gRPC status code of an error without a better one."""
MOST_WAITING = 64
"""Calls of the peer that may wait to be served."""
_UCRED = struct.Struct("3i")


async def _serve_nothing(call: Called) -> Message:
    raise Refused(UNIMPLEMENTED, f"{call.service} is not served here")


class Link(asyncio.Protocol):
    """One connection, either side of it; `closed` is set when it has ended, for whichever reason."""

    def __init__(self, *, plugin: bool = False) -> None:
        self._session = Session(plugin=plugin)
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, asyncio.Future[Answered]] = {}
        self._queue: asyncio.Queue[Called] = asyncio.Queue(MOST_WAITING)
        self._server: asyncio.Task[None] | None = None
        self.serve: Serve = _serve_nothing
        """Answers the peer's calls; what it raises becomes a refusal."""
        self.closed = asyncio.Event()
        self.peer_pid = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            self.peer_pid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
        self._server = asyncio.create_task(self._serve_all())

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        del exc
        self.closed.set()
        for waiting in self._calls.values():
            if not waiting.done():
                waiting.set_exception(Gone("the connection was closed"))
        self._calls.clear()
        if self._server is not None:
            self._server.cancel()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            for event in self._session.feed(data):
                self._take(event)
        except ProtocolError as error:
            log.warning("a connection of NRI broke the protocol", peer=self.peer_pid, error=str(error))
            self.close()
            return
        self._send(self._session.pending())

    def close(self) -> None:
        """Drop the connection and whatever has not been sent; calls that wait raise Gone."""
        self.closed.set()
        if self._transport is not None:
            self._transport.abort()

    async def call(self, service: str, method: str, request: Message, answer: type[M], seconds: float) -> M:
        """Call the peer and give its answer.

        Raises Refused with the peer's status, Oversized when the request cannot be carried, Gone when the connection ends
        or `seconds` pass without an answer, ProtocolError for an answer that is none.
        """
        if self.closed.is_set():
            raise Gone("the connection is closed")
        stream, data = self._session.call(service, method, request.SerializeToString(), int(seconds * 1e9))
        waiting = self._calls[stream] = asyncio.get_running_loop().create_future()
        self._send(data)
        try:
            async with asyncio.timeout(seconds):
                answered = await waiting
        except TimeoutError:
            raise Gone(f"{method} was not answered within {seconds:g} s") from None
        finally:
            self._calls.pop(stream, None)
            self._session.forget(stream)
        if answered.code:
            raise Refused(answered.code, answered.message)
        try:
            return answer.FromString(answered.payload)
        except DecodeError as error:
            raise ProtocolError(f"the answer to {method} cannot be read: {error}") from error

    def _take(self, event: Answered | Called) -> None:
        if isinstance(event, Answered):
            waiting = self._calls.get(event.stream)
            if waiting is not None and not waiting.done():
                waiting.set_result(event)
            return
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            raise ProtocolError(f"more than {MOST_WAITING} calls wait to be served") from None

    async def _serve_all(self) -> None:
        while True:
            call = await self._queue.get()
            try:
                answer = await self.serve(call)
                self._send(self._session.answer(call.stream, answer.SerializeToString()))
            except Refused as error:
                self._send(self._session.refuse(call.stream, error.code, str(error)))
            except (NriError, DecodeError) as error:
                self._send(self._session.refuse(call.stream, UNKNOWN, str(error)))
            except Exception as error:
                log.exception("a call of NRI was not served", method=call.method)
                self._send(self._session.refuse(call.stream, UNKNOWN, f"{type(error).__name__}: {error}"))

    def _send(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
