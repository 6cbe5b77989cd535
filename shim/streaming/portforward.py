"""Port-forward: pairs of streams joined with connections into a pod."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

import structlog

from shim.errors import WherryError
from shim.streaming.link import ConnectionGone
from shim.streaming.pipes import FdReader, FdWriter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shim.streaming.mux import SpdyMux
    from shim.streaming.stream import Stream
    from shim.streaming.websocket import ChannelMux

    Connect = Callable[[int], Awaitable[socket.socket]]

log = structlog.get_logger()

PROTOCOL = "portforward.k8s.io"
TUNNEL_PROTOCOLS = ("SPDY/3.1+portforward.k8s.io", "v2.portforward.k8s.io")
"""WebSocket subprotocols that carry SPDY in binary messages (KEP 4006)."""
WEBSOCKET_PROTOCOLS = {
    "v4.channel.k8s.io": False,
    "v4.base64.channel.k8s.io": True,
    "portforward.k8s.io": False,
}
"""Subprotocols with channels 2n for the data of the n-th port and 2n + 1 for its error; the value: text in base64."""
PAIR_SECONDS = 30.0
"""How long the second stream of a pair may take to come after the first."""


class _Pair:
    """A data stream and its error stream."""

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.timer = timer
        self.streams: dict[str, Stream] = {}


class SpdyForwarder:
    """The port-forwards of one SPDY connection; the client opens a pair of streams for each of its connections."""

    def __init__(self, mux: SpdyMux, connect: Connect) -> None:
        self._mux = mux
        self._connect = connect
        self._pairs: dict[str, _Pair] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        mux.on_stream = self._opened

    def _opened(self, stream: Stream) -> None:
        kind, port = stream.headers.get("streamtype", ""), stream.headers.get("port", "")
        if kind not in {"data", "error"} or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 1 << 16:
            log.debug("port-forward stream refused", kind=kind[:40], port=port[:40])
            stream.reset()
            return
        request = stream.headers.get("requestid") or self._numbered(stream, kind)
        pair = self._pairs.get(request)
        if pair is None:
            timer = asyncio.get_running_loop().call_later(PAIR_SECONDS, self._expire, request)
            pair = self._pairs[request] = _Pair(timer)
        if kind in pair.streams:
            stream.reset()
            return
        self._mux.accept(stream)
        pair.streams[kind] = stream
        if len(pair.streams) == 2:
            pair.timer.cancel()
            del self._pairs[request]
            self._start(pair.streams["data"], pair.streams["error"], int(port))

    @staticmethod
    def _numbered(stream: Stream, kind: str) -> str:
        """Pair streams of clients that send no request id: the error stream is opened first, the data stream next."""
        return f"#{stream.number if kind == 'error' else stream.number - 2}"

    def _expire(self, request: str) -> None:
        for stream in self._pairs.pop(request).streams.values():
            stream.reset()

    def _start(self, data: Stream, error: Stream, port: int) -> None:
        task = asyncio.get_running_loop().create_task(self._forward(data, error, port))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, data: Stream, error: Stream, port: int) -> None:
        try:
            await forward(data, error, port, self._connect)
        finally:
            for stream in (data, error):
                self._mux.forget(stream)

    async def serve(self) -> None:
        """Forward until the client goes."""
        try:
            await asyncio.wait([self._mux.gone])
        finally:
            for pair in self._pairs.values():
                pair.timer.cancel()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)


async def serve_channels(mux: ChannelMux, ports: tuple[int, ...], connect: Connect) -> None:
    """Forward each port over its two channels, until every forward is over; each begins with its port, little-endian."""
    forwards = []
    for index, port in enumerate(ports):
        data, error = mux.streams[2 * index], mux.streams[2 * index + 1]
        for stream in (data, error):
            mux.post(stream, port.to_bytes(2, "little"))
        forwards.append(asyncio.ensure_future(forward(data, error, port, connect, half_close=False)))
    try:
        every: asyncio.Future[Any] = asyncio.gather(*forwards, return_exceptions=True)
        gone: asyncio.Future[Any] = mux.gone
        await asyncio.wait([every, gone], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in forwards:
            task.cancel()
        await asyncio.gather(*forwards, return_exceptions=True)


async def forward(data: Stream, error: Stream, port: int, connect: Connect, *, half_close: bool = True) -> None:
    """Connect to the port and copy both ways until both have ended; tell on `error` why it could not be connected to.

    Without `half_close` the end of what the pod sends ends the whole: the protocol has no way to tell it alone.
    """
    try:
        try:
            sock = await connect(port)
        except (WherryError, OSError) as problem:
            await error.write(f"error forwarding port {port}: {problem}".encode())
            return
        with sock:
            await _copy(sock, data, error, half_close=half_close)
    except ConnectionGone:
        log.debug("port-forward client has gone", port=port)
    finally:
        data.finish()
        error.finish()


async def _copy(sock: socket.socket, data: Stream, error: Stream, *, half_close: bool) -> None:
    sock.setblocking(False)
    reader, writer = FdReader(os.dup(sock.fileno())), FdWriter(os.dup(sock.fileno()))
    down = asyncio.ensure_future(_down(reader, data, error))
    upward = asyncio.ensure_future(_up(sock, writer, data))
    broken = asyncio.ensure_future(asyncio.wait([data.broken]))
    tasks = (down, upward, broken)
    try:
        done, _rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if half_close and broken not in done:
            await asyncio.wait({broken, upward if down in done else down}, return_when=asyncio.FIRST_COMPLETED)
        elif upward in done and broken not in done:
            await asyncio.wait({broken, down}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        reader.close()
        writer.close()


async def _down(reader: FdReader, data: Stream, error: Stream) -> None:
    """Copy what the pod sends; with its end both streams end: nothing can go wrong any more that the client must know."""
    while chunk := await reader.read():
        await data.write(chunk)
    data.finish()
    error.finish()


async def _up(sock: socket.socket, writer: FdWriter, data: Stream) -> None:
    try:
        while chunk := await data.read():
            await writer.write(chunk)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
    except BrokenPipeError:
        while await data.read():  # the pod reads no more; other streams must not be held up
            pass
