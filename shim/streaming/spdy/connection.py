"""A SPDY connection: frames checked against the state of their streams."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from shim.streaming.spdy.codec import ID_LIMIT, FrameReader, FrameWriter
from shim.streaming.spdy.errors import LocalError, ProtocolError
from shim.streaming.spdy.events import (
    NEED_DATA,
    Data,
    GoAway,
    HeadersAdded,
    Refused,
    ResetStatus,
    StreamAccepted,
    StreamOpened,
    StreamReset,
    WindowGrown,
)
from shim.streaming.spdy.state import Half, Party, StreamState

if TYPE_CHECKING:
    from shim.streaming.spdy.events import Event, Frame, NeedData, OfStream

INITIAL_WINDOW = 64 * 1024
"""Bytes a peer that keeps to flow control sends on a stream, or on all together, before it waits (section 2.6.8)."""
MAX_STREAMS = 1024
"""Streams the peer may have open at once."""


class Role(Enum):
    """Which end of the connection; the value is the parity of its stream and ping ids."""

    CLIENT = 1
    SERVER = 0


class Connection:
    """One end of a connection. After a ProtocolError it is of no more use; send a GoAway and close."""

    def __init__(self, role: Role, *, max_streams: int = MAX_STREAMS) -> None:
        self._role = role
        self._max_streams = max_streams
        self._reader = FrameReader()
        self._writer = FrameWriter()
        self._streams: dict[int, StreamState] = {}
        self._owed: dict[int, int] = {}
        self._last_own = 0
        self._last_theirs = 0
        self._going = False

    @property
    def streams(self) -> int:
        """Streams that are not over."""
        return len(self._streams)

    @property
    def last_accepted(self) -> int:
        """Highest id the peer has opened: what our GOAWAY names."""
        return self._last_theirs

    @property
    def mid_frame(self) -> bool:
        """Whether the bytes so far end within a frame."""
        return self._reader.pending > 0

    def is_own(self, number: int) -> bool:
        """Whether a stream or ping of this number was begun by us."""
        return number % 2 == self._role.value

    def next_stream_id(self) -> int:
        """Give the id for the next stream of ours; raise LocalError when there is none left."""
        number = self._last_own + 2 if self._last_own else (1 if self._role is Role.CLIENT else 2)
        if number > ID_LIMIT:
            raise LocalError("all stream ids are used")
        return number

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the peer."""
        self._reader.feed(data)

    def next_event(self) -> Event | NeedData:
        """Give what the peer sent next, or NEED_DATA; raise ProtocolError when it broke the protocol.

        What concerns a stream that is over, which the peer could not know yet, is left out.
        """
        while True:
            frame = self._reader.next()
            if frame is NEED_DATA:
                return NEED_DATA
            event = self._received(frame)
            if event is not None:
                return event

    def _received(self, frame: Frame) -> Event | None:
        match frame:
            case StreamOpened():
                return self._opened(frame)
            case StreamAccepted() | HeadersAdded() | Data():
                return self._carried(frame)
            case StreamReset():
                if self._never_was(frame.stream_id):
                    raise ProtocolError(f"stream {frame.stream_id} was reset before it was opened")
                return frame if self._drop(frame.stream_id) else None
            case WindowGrown():
                return self._grown(frame)
            case _:
                return frame

    def _opened(self, event: StreamOpened) -> Event | None:
        number = event.stream_id
        if number == 0 or self.is_own(number) or number <= self._last_theirs:
            raise ProtocolError(f"the peer opened stream {number} after {self._last_theirs}")
        if self._going:
            return None
        self._last_theirs = number
        if len(self._streams) >= self._max_streams:
            return Refused(stream_id=number, status=ResetStatus.REFUSED_STREAM)
        state = StreamState(Party.ACCEPTOR)
        state.advance(Party.OPENER, event)
        self._keep(number, state)
        return event

    def _carried(self, event: StreamAccepted | HeadersAdded | Data) -> Event | None:
        number = event.stream_id
        if number == 0:
            raise ProtocolError(f"{type(event).__name__} came on stream 0, which is the connection itself")
        state = self._streams.get(number)
        if state is None:
            if self._never_was(number):
                return Refused(stream_id=number, status=ResetStatus.INVALID_STREAM)
            return None
        fault = state.advance(state.mine.other, event)
        if fault is not None:
            self._drop(number)
            return Refused(stream_id=number, status=fault)
        self._keep(number, state)
        return event

    def _grown(self, event: WindowGrown) -> Event | None:
        if event.delta == 0:
            raise ProtocolError(f"stream {event.stream_id} had its window grown by nothing")
        if event.stream_id and self._never_was(event.stream_id):
            raise ProtocolError(f"stream {event.stream_id} had its window grown before it was opened")
        return event if event.stream_id == 0 or event.stream_id in self._streams else None

    def _never_was(self, number: int) -> bool:
        return number == 0 or number > (self._last_own if self.is_own(number) else self._last_theirs)

    def _keep(self, number: int, state: StreamState) -> None:
        if state.over:
            self._drop(number)
        else:
            self._streams[number] = state

    def _drop(self, number: int) -> bool:
        self._owed.pop(number, None)
        return self._streams.pop(number, None) is not None

    def writable(self, stream_id: int) -> bool:
        """Whether Data may be sent on a stream now."""
        state = self._streams.get(stream_id)
        return state is not None and state.halves[state.mine] is Half.OPEN

    def knows(self, stream_id: int) -> bool:
        """Whether a stream is open in at least one direction."""
        return stream_id in self._streams

    def send(self, event: Frame) -> bytes:
        """Give the bytes for an event; raise LocalError when it may not be sent now."""
        match event:
            case StreamOpened():
                self._open(event)
            case StreamAccepted() | HeadersAdded() | Data():
                self._carry(event)
            case StreamReset():
                if event.stream_id == 0:
                    raise LocalError("stream 0 cannot be reset")
                self._drop(event.stream_id)
            case GoAway():
                self._going = True
        return self._writer.write(event)

    def _open(self, event: StreamOpened) -> None:
        if event.stream_id != self.next_stream_id():
            raise LocalError(f"the next stream is {self.next_stream_id()}, not {event.stream_id}")
        state = StreamState(Party.OPENER)
        state.advance(Party.OPENER, event)
        self._last_own = event.stream_id
        self._keep(event.stream_id, state)

    def _carry(self, event: OfStream) -> None:
        state = self._streams.get(event.stream_id)
        if state is None:
            raise LocalError(f"stream {event.stream_id} is not open")
        fault = state.advance(state.mine, event)
        if fault is not None:
            raise LocalError(f"{type(event).__name__} may not be sent on stream {event.stream_id}: {fault.name.lower()}")
        self._keep(event.stream_id, state)

    def consumed(self, stream_id: int, size: int) -> bytes:
        """Note that the user took `size` bytes of a stream, and give the WINDOW_UPDATEs that are due (maybe none).

        They are sent for half a window at a time: the peer never has to wait, and small reads cost nothing.
        """
        out = b""
        for number in (stream_id, 0):
            if number and number not in self._streams:
                continue
            owed = self._owed.get(number, 0) + size
            if owed >= INITIAL_WINDOW // 2:
                out += self._writer.write(WindowGrown(stream_id=number, delta=owed))
                owed = 0
            self._owed[number] = owed
        return out
