"""The conversation after the HTTP request: which protocol the client wants, and the streams it brings."""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from shim.streaming import http, portforward, remotecommand, spdy
from shim.streaming.http import Refusal
from shim.streaming.link import ConnectionGone
from shim.streaming.mux import SpdyMux
from shim.streaming.remotecommand import Channels
from shim.streaming.requests import AttachStream, ExecStream, PortForwardStream
from shim.streaming.websocket import ChannelMux, WebSocket

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shim.streaming.http import Exchange, Request
    from shim.streaming.link import SocketLink
    from shim.streaming.requests import StreamRequest
    from shim.streaming.server import Backend
    from shim.streaming.stream import Stream

STREAM_SECONDS = 30.0
"""How long a client may take to open the streams it has asked for."""
_SPDY = "spdy/3.1"
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE = range(5)
"""Channels of a remote command over WebSocket."""


async def serve(exchange: Exchange, wanted: StreamRequest, backend: Backend, watch: Watch) -> None:
    """Speak whatever the client asks for; raise Refusal."""
    if exchange.request.upgrade == _SPDY:
        await _serve_spdy(exchange, wanted, backend, watch)
    elif exchange.request.upgrade == "websocket":
        await _serve_websocket(exchange, wanted, backend, watch)
    else:
        raise Refusal(
            HTTPStatus.UPGRADE_REQUIRED,
            "this address streams: upgrade to SPDY/3.1 or to websocket",
            [("upgrade", "SPDY/3.1, websocket")],
        )


class Watch:
    """Ends connections on which nothing has moved for too long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def over(self, link: SocketLink) -> None:
        """Begin to watch a connection."""
        if self._seconds > 0:
            self._look(link)

    def _look(self, link: SocketLink) -> None:
        if link.gone.done():
            return
        loop = asyncio.get_running_loop()
        left = link.active_at + self._seconds - loop.time()
        if left <= 0:
            link.abort()
        else:
            timer = loop.call_later(left, self._look, link)
            link.gone.add_done_callback(lambda _future: timer.cancel())


def _choose(offered: list[str], known: Iterable[str]) -> str:
    """Give the first that the client offers and we know, "" when it offers nothing; raise Refusal."""
    names = list(known)
    if not offered:
        return ""
    chosen = next((name for name in offered if name in names), None)
    if chosen is None:
        accepted = [("x-accepted-stream-protocol-versions", name) for name in names]
        raise Refusal(HTTPStatus.FORBIDDEN, f"none of the protocols {offered} is served, but {names}", accepted)
    return chosen


async def _serve_spdy(exchange: Exchange, wanted: StreamRequest, backend: Backend, watch: Watch) -> None:
    forwarding = isinstance(wanted, PortForwardStream)
    known: Iterable[str] = (portforward.PROTOCOL,) if forwarding else remotecommand.SPDY_VERSIONS
    protocol = _choose(exchange.request.words(http.PROTOCOL_VERSION), known)
    headers = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")]
    if protocol:
        headers.append(("X-Stream-Protocol-Version", protocol))
    link, early = exchange.switch(headers)
    watch.over(link)
    mux = SpdyMux(link, spdy.Role.SERVER)
    if isinstance(wanted, PortForwardStream):
        await _forward(mux, wanted, backend, partial(link.begin, mux.receive, early))
        return
    collecting = _Streams(mux, wanted, remotecommand.SPDY_VERSIONS.get(protocol, 1))
    link.begin(mux.receive, early)
    try:
        channels = await collecting.channels()
    except (ConnectionGone, TimeoutError):
        link.abort()
        return
    await _converse(channels, wanted, backend)


async def _converse(channels: Channels, wanted: ExecStream | AttachStream, backend: Backend) -> None:
    if isinstance(wanted, ExecStream):
        await remotecommand.converse(channels, partial(backend.start_exec, wanted))
    else:
        await remotecommand.converse(channels, partial(backend.start_attach, wanted))


async def _forward(mux: SpdyMux, wanted: PortForwardStream, backend: Backend, begin: partial[None]) -> None:
    forwarder = portforward.SpdyForwarder(mux, partial(backend.connect, wanted.pod_id))
    begin()
    await forwarder.serve()


class _Streams:
    """Waits for the streams of a remote command; others are reset."""

    def __init__(self, mux: SpdyMux, wanted: ExecStream | AttachStream, version: int) -> None:
        self._mux = mux
        self._version = version
        names = ["error"]
        names += [name for name in ("stdin", "stdout", "stderr") if getattr(wanted, name)]
        if wanted.tty and version >= 3:
            names.append("resize")
        self._expected = set(names)
        self._found: dict[str, Stream] = {}
        self._last: Stream | None = None
        self._complete = asyncio.Event()
        mux.on_stream = self._opened

    def _opened(self, stream: Stream) -> None:
        kind = stream.headers.get("streamtype", "")
        if kind not in self._expected or kind in self._found:
            stream.reset()
            return
        self._found[kind] = stream
        if len(self._found) == len(self._expected):
            self._last = stream
            self._complete.set()
        else:
            self._mux.accept(stream)

    def _joined(self) -> None:
        """Accept the last stream, by which a client can know that it misses nothing; the usual ones open one after another."""
        if self._last is not None and not self._last.broken.done():
            self._mux.accept(self._last)

    async def channels(self) -> Channels:
        """Give them once they are there; raise TimeoutError, ConnectionGone."""
        complete: asyncio.Future[Any] = asyncio.ensure_future(self._complete.wait())
        try:
            async with asyncio.timeout(STREAM_SECONDS):
                await asyncio.wait([complete, self._mux.gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            complete.cancel()
        if not self._complete.is_set():
            raise ConnectionGone("the client has gone before it opened its streams")
        return Channels(version=self._version, gone=self._mux.gone, close=self._mux.close, joined=self._joined, **self._found)


async def _serve_websocket(exchange: Exchange, wanted: StreamRequest, backend: Backend, watch: Watch) -> None:
    if isinstance(wanted, PortForwardStream):
        known: Iterable[str] = (*portforward.TUNNEL_PROTOCOLS, *portforward.WEBSOCKET_PROTOCOLS)
    else:
        known = remotecommand.WEBSOCKET_VERSIONS
    protocol = _choose(exchange.request.words("sec-websocket-protocol"), known)
    link, early = exchange.switch(_websocket_head(exchange.request, protocol))
    watch.over(link)
    socket = WebSocket(link)
    if not isinstance(wanted, PortForwardStream):
        channels = _websocket_channels(socket, wanted, remotecommand.WEBSOCKET_VERSIONS.get(protocol, (1, False)))
        link.begin(socket.receive, early)
        await _converse(channels, wanted, backend)
    elif protocol in portforward.TUNNEL_PROTOCOLS:
        mux = SpdyMux(socket, spdy.Role.SERVER)
        socket.on_data = mux.receive
        await _forward(mux, wanted, backend, partial(link.begin, socket.receive, early))
    else:
        text = portforward.WEBSOCKET_PROTOCOLS.get(protocol, False)
        channel_mux = ChannelMux(socket, 2 * len(wanted.ports), text=text, close_signal=False)
        link.begin(socket.receive, early)
        await portforward.serve_channels(channel_mux, wanted.ports, partial(backend.connect, wanted.pod_id))
        await channel_mux.close()


def _websocket_head(request: Request, protocol: str) -> list[tuple[str, str]]:
    """Give the headers of the answer (RFC 6455, section 4.2.2); raise Refusal for a request that is no handshake."""
    if request.method != "GET" or request.header("sec-websocket-version") != "13":
        raise Refusal(HTTPStatus.UPGRADE_REQUIRED, "only websocket version 13 is served", [("sec-websocket-version", "13")])
    accept = http.websocket_accept(request.header("sec-websocket-key"))
    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]
    return [*headers, ("Sec-WebSocket-Protocol", protocol)] if protocol else headers


def _websocket_channels(socket: WebSocket, wanted: ExecStream | AttachStream, shape: tuple[int, bool]) -> Channels:
    version, text = shape
    mux = ChannelMux(socket, 5, text=text, close_signal=version >= 5)
    numbers: Mapping[str, int] = {"stdin": _STDIN, "stdout": _STDOUT, "stderr": _STDERR}
    found = {name: mux.streams[number] for name, number in numbers.items() if getattr(wanted, name)}
    if wanted.tty:
        found["resize"] = mux.streams[_RESIZE]
    read = {stream.number for name, stream in found.items() if name in {"stdin", "resize"}}
    mux.ignored |= set(range(5)) - read
    # An empty message on the first output tells the client that the connection stands.
    joined = partial(mux.post, found.get("stdout") or found.get("stderr") or mux.streams[_ERROR], b"")
    return Channels(version=version, error=mux.streams[_ERROR], gone=socket.gone, close=mux.close, joined=joined, **found)
