"""The client's end: connect to a streaming URL and open the streams of a remote command or of port-forwards, over SPDY."""

from __future__ import annotations

import asyncio
import urllib.parse
from typing import TYPE_CHECKING

import h11

from shim.errors import Unavailable, WherryError
from shim.streaming import http, portforward, remotecommand, spdy
from shim.streaming.link import SocketLink
from shim.streaming.mux import SpdyMux

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shim.streaming.stream import Stream

CONNECT_SECONDS = 30.0
_REFUSAL_LIMIT = 4096


class _Handshake(asyncio.Protocol):
    """Sends the request and waits for 101; `link` is the socket after it, `refusal` what was said instead."""

    def __init__(self, target: str, host: str, protocols: Iterable[str]) -> None:
        self._connection = h11.Connection(h11.CLIENT)
        self._head = [("Host", host), ("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("Content-Length", "0")]
        self._head += [(http.PROTOCOL_VERSION, protocol) for protocol in protocols]
        self._target = target
        self._transport: asyncio.Transport
        self._said = bytearray()
        self._status = 0
        self.early = b""
        self.done: asyncio.Future[SocketLink] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        request = h11.Request(method="POST", target=self._target, headers=self._head)
        transport.write(b"".join(self._connection.send(event) or b"" for event in (request, h11.EndOfMessage())))

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            self._connection.receive_data(data)
            while (event := self._connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                    self.early = self._connection.trailing_data[0]
                    self.done.set_result(SocketLink(self._transport))
                    return
                if isinstance(event, h11.Response):
                    self._status = event.status_code
                elif isinstance(event, h11.Data):
                    self._said += event.data[: _REFUSAL_LIMIT - len(self._said)]
                elif isinstance(event, h11.EndOfMessage):
                    self._refuse(f"it answered {self._status}: {self._said.decode(errors='replace').strip()}")
                    return
        except h11.RemoteProtocolError as error:
            self._refuse(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        del exc
        self._refuse("it closed the connection")

    def _refuse(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(Unavailable(f"the streaming server does not stream: {reason}"))
            self._transport.abort()


async def dial(url: str, protocols: Iterable[str]) -> SpdyMux:
    """Connect and upgrade; raise Unavailable with what the server said, InvalidArgument's base for a URL we cannot use."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise WherryError(f"streaming URL {url!r} is not http://HOST:PORT/…")
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            loop = asyncio.get_running_loop()
            _transport, handshake = await loop.create_connection(
                lambda: _Handshake(target, parts.netloc, protocols), parts.hostname, parts.port or 80
            )
            link = await handshake.done
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"streaming server {parts.netloc} cannot be reached: {error}") from error
    mux = SpdyMux(link, spdy.Role.CLIENT)
    link.begin(mux.receive, handshake.early)
    return mux


class RemoteCommand:
    """The client's streams of an exec or attach: those asked for, by name."""

    def __init__(self, mux: SpdyMux, names: Iterable[str]) -> None:
        self.mux = mux
        self.streams: dict[str, Stream] = {name: mux.open({"streamtype": name}) for name in names}

    @classmethod
    async def open(cls, url: str, *names: str, tty: bool = False) -> RemoteCommand:
        """Connect to an exec or attach URL; `names` of stdin, stdout, stderr as they were asked of the CRI."""
        mux = await dial(url, [name for name, version in remotecommand.SPDY_VERSIONS.items() if version == 4])
        return cls(mux, ["error", *names, *(["resize"] if tty else [])])

    def __getitem__(self, name: str) -> Stream:
        return self.streams[name]

    async def accepted(self) -> None:
        """Wait until the server has taken all streams: from then on nothing the command writes is missed."""
        for stream in self.streams.values():
            await asyncio.wait([stream.accepted, stream.broken], return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """End the connection."""
        for stream in self.streams.values():
            stream.reset()
        self.mux.abort()
        await asyncio.wait([self.mux.gone])


class PortForward:
    """The client's end of port-forwards."""

    def __init__(self, mux: SpdyMux) -> None:
        self.mux = mux
        self._count = 0

    @classmethod
    async def open(cls, url: str) -> PortForward:
        """Connect to a port-forward URL."""
        return cls(await dial(url, [portforward.PROTOCOL]))

    def connect(self, port: int) -> tuple[Stream, Stream]:
        """Open a connection to a port of the pod; give its data stream and its error stream, which tells of a failure."""
        self._count += 1
        headers = {"port": str(port), "requestid": str(self._count)}
        error = self.mux.open({"streamtype": "error", **headers})
        error.finish()
        return self.mux.open({"streamtype": "data", **headers}), error
