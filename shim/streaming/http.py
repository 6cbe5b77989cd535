"""The HTTP side: one request a connection, which either upgrades to a streaming protocol or is refused in plain words.

h11 parses; the answer to a request that may stream is 101, and from then on the socket belongs to SPDY or WebSocket.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11

from shim.streaming.link import LINGER_SECONDS, SocketLink

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

HEADER_LIMIT = 64 * 1024
"""Bytes of a request's head."""
HEAD_SECONDS = 30.0
"""How long a client may take to send it."""
NOT_FOUND = HTTPStatus.NOT_FOUND
PROTOCOL_VERSION = "x-stream-protocol-version"
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


class Refusal(Exception):  # noqa: N818 - an answer as much as an error
    """The request is answered with an HTTP status and a line of text."""

    def __init__(self, status: HTTPStatus, text: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.headers = list(headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The head of a request."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str:
        """Give the first value of a header, or ""."""
        return next((value for key, value in self.headers if key == name), "")

    def words(self, name: str) -> list[str]:
        """Give all words of a header that is a list, which may come in several lines."""
        lines = [value for key, value in self.headers if key == name]
        return [word.strip() for line in lines for word in line.split(",") if word.strip()]

    @property
    def upgrade(self) -> str:
        """The protocol asked for, in lower case; "" for a plain request."""
        wanted = any(word.lower() == "upgrade" for word in self.words("connection"))
        return self.header("upgrade").lower() if wanted else ""


class Exchange:
    """A request that waits for its answer."""

    def __init__(self, request: Request, connection: h11.Connection, transport: asyncio.Transport) -> None:
        self.request = request
        self._connection = connection
        self._transport = transport

    def switch(self, headers: Sequence[tuple[str, str]]) -> tuple[SocketLink, bytes]:
        """Answer 101; give the socket and the bytes that came with the request."""
        link = SocketLink(self._transport)
        answer = h11.InformationalResponse(status_code=101, headers=[*headers], reason=b"Switching Protocols")
        link.write(self._connection.send(answer) or b"")
        self._transport.resume_reading()
        return link, self._connection.trailing_data[0]

    def abort(self) -> None:
        """Close at once, whatever was said."""
        self._transport.abort()


class HttpProtocol(asyncio.Protocol):
    """Reads one request and hands it to `serve`, which answers by `Exchange.switch` or raises Refusal."""

    def __init__(self, serve: Callable[[Exchange], Awaitable[None]], sessions: set[asyncio.Task[None]]) -> None:
        self._serve = serve
        self._sessions = sessions
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_LIMIT)
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle | None = None
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._deadline = asyncio.get_running_loop().call_later(HEAD_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        del exc
        self._disarm()

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._answered:
            return
        try:
            self._connection.receive_data(data)
            event = self._connection.next_event()
        except h11.RemoteProtocolError as error:
            self._disarm()
            self._answer(Refusal(HTTPStatus(error.error_status_hint), str(error)))
            return
        if isinstance(event, h11.Request):
            self._disarm()
            self._start(event)

    def _start(self, event: h11.Request) -> None:
        self._transport.pause_reading()  # what follows belongs to the next protocol
        if not isinstance(self._connection.next_event(), h11.EndOfMessage):
            self._answer(Refusal(HTTPStatus.BAD_REQUEST, "a streaming request has no body"))
            return
        request = Request(
            method=event.method.decode("ascii"),
            path=event.target.decode("ascii").partition("?")[0],
            headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers),
        )
        task = asyncio.get_running_loop().create_task(self._run(request))
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)

    async def _run(self, request: Request) -> None:
        try:
            await self._serve(Exchange(request, self._connection, self._transport))
        except Refusal as refusal:
            self._answer(refusal)
        except asyncio.CancelledError:
            self._transport.abort()
            raise

    def _answer(self, refusal: Refusal) -> None:
        body = f"{refusal}\n".encode()
        headers = [
            ("content-type", "text/plain; charset=utf-8"),
            ("content-length", str(len(body))),
            ("connection", "close"),
            *refusal.headers,
        ]
        events = (
            h11.Response(status_code=refusal.status, headers=headers, reason=refusal.status.phrase.encode()),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        self._answered = True
        with contextlib.suppress(h11.LocalProtocolError):  # the answer was begun already
            self._transport.write(b"".join(self._connection.send(event) or b"" for event in events))
        # To close with bytes unread would reset the connection, and the answer with it: the client closes, or the time is up.
        self._transport.resume_reading()
        self._transport.write_eof()
        self._deadline = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.abort)


def websocket_accept(key: str) -> str:
    """Give the Sec-WebSocket-Accept for a client's key (RFC 6455, section 4.2.2); raise Refusal for one that is none."""
    try:
        valid = len(base64.b64decode(key, validate=True)) == 16
    except ValueError:
        valid = False
    if not valid:
        raise Refusal(HTTPStatus.BAD_REQUEST, "sec-websocket-key is not 16 bytes in base64")
    return base64.b64encode(hashlib.sha1(key.encode() + _WEBSOCKET_GUID, usedforsecurity=False).digest()).decode()
