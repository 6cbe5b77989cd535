"""SPDY on a link: streams with their own pace, for the server and for clients."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from shim.streaming import spdy
from shim.streaming.link import ConnectionGone
from shim.streaming.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shim.streaming.link import ByteLink

STREAM_LIMIT = 4 * spdy.INITIAL_WINDOW
"""Bytes of one stream that nobody took at which the whole connection is held: peers that keep to flow control never get
there, but the usual Go clients know none."""
TOTAL_LIMIT = 16 * 1024 * 1024
"""The same for all streams together."""


class SpdyMux:
    """The streams of a connection. New ones of the peer are told to `on_stream` and have to be accepted or reset."""

    def __init__(self, link: ByteLink, role: spdy.Role) -> None:
        self._link = link
        self._connection = spdy.Connection(role)
        self._streams: dict[int, Stream] = {}
        self._kept = 0
        self._heavy: set[int] = set()
        self.on_stream: Callable[[Stream], None] = Stream.reset
        self.gone = link.gone
        link.gone.add_done_callback(lambda _future: self._lost())

    def receive(self, data: bytes) -> None:
        """Take bytes of the link."""
        self._connection.receive_data(data)
        try:
            while (event := self._connection.next_event()) is not spdy.NEED_DATA:
                self._handle(event)
        except spdy.ProtocolError as error:
            self._link.write(self._connection.send(spdy.GoAway(last_stream_id=0, status=error.status)))
            self._link.on_data = _drop
            self._link.abort()
        self._weigh()

    def _handle(self, event: spdy.Event) -> None:
        match event:
            case spdy.Data() | spdy.HeadersAdded() | spdy.StreamAccepted():
                self._carry(event)
            case spdy.StreamOpened():
                self._opened(event)
            case spdy.StreamReset():
                self._fail(event.stream_id)
            case spdy.Refused():
                self._link.write(self._connection.send(spdy.StreamReset(stream_id=event.stream_id, status=event.status)))
                self._fail(event.stream_id)
            case spdy.Ping():
                if not self._connection.is_own(event.ping_id):
                    self._link.write(self._connection.send(event))
            case _:
                pass  # windows and settings are the peer's wishes; GOAWAY is followed by the end of the connection

    def _opened(self, event: spdy.StreamOpened) -> None:
        stream = Stream(self, event.stream_id, dict(reversed(event.headers)))
        self._streams[event.stream_id] = stream
        if event.fin:
            stream.feed_end()
        self.on_stream(stream)

    def _carry(self, event: spdy.Data | spdy.HeadersAdded | spdy.StreamAccepted) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        if isinstance(event, spdy.StreamAccepted):
            stream.accepted.set_result(None)
        if isinstance(event, spdy.Data) and event.data:
            before = stream.kept
            stream.feed(event.data)
            self._kept += stream.kept - before
            if stream.kept > STREAM_LIMIT:
                self._heavy.add(stream.number)
        if event.fin:
            stream.feed_end()

    def _weigh(self) -> None:
        self._link.hold(wanted=bool(self._heavy) or self._kept > TOTAL_LIMIT)

    def _fail(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream.fail()

    def _lost(self) -> None:
        for stream in list(self._streams.values()):
            stream.fail()

    def open(self, headers: Mapping[str, str]) -> Stream:
        """Open a stream of our own."""
        number = self._connection.next_stream_id()
        self._link.write(self._connection.send(spdy.StreamOpened(stream_id=number, headers=tuple(headers.items()))))
        stream = self._streams[number] = Stream(self, number, headers)
        return stream

    def accept(self, stream: Stream) -> None:
        """Answer a stream of the peer."""
        self._link.write(self._connection.send(spdy.StreamAccepted(stream_id=stream.number)))

    def consumed(self, stream: Stream, size: int) -> None:
        """See Carrier."""
        self._kept -= size
        if stream.kept <= STREAM_LIMIT // 2:
            self._heavy.discard(stream.number)
        self._link.write(self._connection.consumed(stream.number, size))
        self._weigh()

    async def send(self, stream: Stream, data: bytes) -> None:
        """See Carrier; the wait comes first, or one piece of each of some hundred streams is too much for a connection."""
        await self._link.drain()
        if not self._connection.writable(stream.number):
            raise ConnectionGone("the stream was reset")
        self._link.write(self._connection.send(spdy.Data(stream_id=stream.number, data=data)))

    def finish(self, stream: Stream) -> None:
        """See Carrier."""
        if self._connection.writable(stream.number):
            self._link.write(self._connection.send(spdy.Data(stream_id=stream.number, fin=True)))

    def reset(self, stream: Stream) -> None:
        """See Carrier."""
        self._streams.pop(stream.number, None)
        self._link.write(self._connection.send(spdy.StreamReset(stream_id=stream.number)))

    def forget(self, stream: Stream) -> None:
        """Let go of a stream that both sides have finished, or reset it when the peer has not."""
        self._streams.pop(stream.number, None)
        stream.discard()
        if self._connection.knows(stream.number):
            self._link.write(self._connection.send(spdy.StreamReset(stream_id=stream.number)))

    def abort(self) -> None:
        """End the connection at once."""
        self._link.abort()

    async def close(self) -> None:
        """End the connection once everything was sent and the peer has closed."""
        with contextlib.suppress(ConnectionGone):
            await self._link.drain()
        await self._link.finish()


def _drop(_data: bytes) -> None:
    """Forget what comes after the end."""
