"""WebSocket on a socket: messages by channel, as remote commands and simple port-forwards use it, or a tunnel of bytes.

wsproto frames; parts of a message are handed on as they come, so that a message of any size costs no memory.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from typing import TYPE_CHECKING

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from shim.streaming.link import ConnectionGone
from shim.streaming.stream import Stream

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from shim.streaming.link import SocketLink

STREAM_LIMIT = 256 * 1024
"""Bytes of one channel that nobody took at which the connection is held."""
CLOSE_CHANNEL = 255
"""Channel of v5.channel.k8s.io whose message names a channel that ends (KEP 4006)."""
_NORMAL, _PROTOCOL_ERROR = 1000, 1002


class WebSocket:
    """The server's end after the handshake; also a ByteLink, for what tunnels through binary messages."""

    def __init__(self, link: SocketLink) -> None:
        self._link = link
        self._connection = Connection(ConnectionType.SERVER)
        self._closing = False
        self.on_part: Callable[[bytes | str, bool], None] = self._tunnelled
        self.on_data: Callable[[bytes], None] = _drop
        self.gone: asyncio.Future[None] = link.gone

    def _tunnelled(self, data: bytes | str, last: bool) -> None:
        del last
        if isinstance(data, bytes):
            self.on_data(data)

    def receive(self, data: bytes) -> None:
        """Take bytes of the socket."""
        if self._closing:
            return
        try:
            self._connection.receive_data(data)
            for event in self._connection.events():
                match event:
                    case BytesMessage():
                        self.on_part(bytes(event.data), event.message_finished)
                    case TextMessage():
                        self.on_part(event.data, event.message_finished)
                    case Ping():
                        self._link.write(self._connection.send(event.response()))
                    case CloseConnection():
                        self._link.write(self._connection.send(event.response()))
                        self._end()
                        return
        except RemoteProtocolError as error:
            code = getattr(error.event_hint, "code", _PROTOCOL_ERROR)
            self._say_goodbye(code, str(error))
            self._end()

    def _end(self) -> None:
        self._closing = True
        self._link.shut()

    def send(self, data: bytes | str) -> None:
        """Send one message; dropped when the connection is ending."""
        if self._closing:
            return
        with contextlib.suppress(LocalProtocolError):
            event = TextMessage(data=data) if isinstance(data, str) else BytesMessage(data=data)
            self._link.write(self._connection.send(event))

    def write(self, data: bytes) -> None:
        """See ByteLink."""
        if data:
            self.send(data)

    async def drain(self) -> None:
        """See ByteLink."""
        if self._closing:
            raise ConnectionGone("the client closes")
        await self._link.drain()

    def hold(self, *, wanted: bool) -> None:
        """See ByteLink."""
        self._link.hold(wanted=wanted)

    def _say_goodbye(self, code: int, reason: str) -> None:
        with contextlib.suppress(LocalProtocolError):
            self._link.write(self._connection.send(CloseConnection(code=code, reason=reason[:120])))

    async def finish(self) -> None:
        """See ByteLink; the close frame says that all is well."""
        if not self._closing:
            self._closing = True
            self._say_goodbye(_NORMAL, "")
        await self._link.finish()

    def abort(self) -> None:
        """See ByteLink."""
        self._link.abort()


class ChannelMux:
    """Streams told apart by the first byte of each message (channel.k8s.io), in binary or in base64."""

    def __init__(self, socket: WebSocket, channels: int, *, text: bool, close_signal: bool) -> None:
        """Have `channels` channels, from 0; `close_signal`: v5, where the client can end one."""
        self._socket = socket
        self._text = text
        self._close_signal = close_signal
        self.streams = [Stream(self, number) for number in range(channels)]
        self._current = -1
        self._carry = ""
        self._heavy: set[int] = set()
        self.ignored: set[int] = set()
        """Channels whose input nobody reads."""
        self.gone = socket.gone
        socket.on_part = self._part
        socket.gone.add_done_callback(lambda _future: self._lost())

    def _lost(self) -> None:
        for stream in self.streams:
            stream.fail()

    def _part(self, data: bytes | str, last: bool) -> None:
        if isinstance(data, str):
            data = self._decode(data, last=last)
        elif self._current < 0 and data:
            self._current, data = data[0], data[1:]
        if self._current >= 0 and data:
            self._deliver(self._current, data)
        if last:
            self._current = -1

    def _decode(self, text: str, *, last: bool) -> bytes:
        if self._current < 0 and text:
            self._current, text = ord(text[0]) - ord("0"), text[1:]
        text = self._carry + text
        cut = len(text) if last else len(text) - len(text) % 4
        self._carry = text[cut:]
        try:
            return base64.b64decode(text[:cut], validate=True)
        except (binascii.Error, ValueError):
            self._socket.abort()
            return b""

    def _deliver(self, channel: int, data: bytes) -> None:
        if channel == CLOSE_CHANNEL:
            if self._close_signal and data[0] < len(self.streams):
                self.streams[data[0]].feed_end()
        elif 0 <= channel < len(self.streams) and channel not in self.ignored:
            stream = self.streams[channel]
            stream.feed(data)
            if stream.kept > STREAM_LIMIT:
                self._heavy.add(channel)
                self._socket.hold(wanted=True)

    def consumed(self, stream: Stream, size: int) -> None:
        """See Carrier."""
        del size
        if stream.kept <= STREAM_LIMIT // 2:
            self._heavy.discard(stream.number)
            if not self._heavy:
                self._socket.hold(wanted=False)

    async def send(self, stream: Stream, data: bytes) -> None:
        """See Carrier."""
        self.post(stream, data)
        await self._socket.drain()

    def post(self, stream: Stream, data: bytes) -> None:
        """Send without waiting: what begins a conversation."""
        if self._text:
            self._socket.send(chr(ord("0") + stream.number) + base64.b64encode(data).decode())
        else:
            self._socket.send(bytes((stream.number,)) + data)

    def finish(self, stream: Stream) -> None:
        """See Carrier: no version of the protocol lets the server end one channel."""

    def reset(self, stream: Stream) -> None:
        """See Carrier: the same."""
        self.ignored.add(stream.number)

    async def close(self) -> None:
        """End the connection once everything was sent and the peer has closed."""
        with contextlib.suppress(ConnectionGone):
            await self._socket.drain()
        await self._socket.finish()


def _drop(_data: bytes) -> None:
    """Forget what nobody reads."""
