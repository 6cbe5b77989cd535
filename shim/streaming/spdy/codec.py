"""Frames to bytes and back. Knows the layout of each frame, not whether it may come now.

    control   1 | version 15 | type 16     data   0 | stream 31
              flags 8 | length 24                 flags 8 | length 24
              payload                             payload

A control frame is bounded by CONTROL_LIMIT before it is kept; the payload of a data frame is never kept at all, but handed
on as it comes: a frame may announce 16 MiB.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from shim.streaming.spdy.errors import LocalError, ProtocolError
from shim.streaming.spdy.events import (
    NEED_DATA,
    Data,
    Frame,
    GoAway,
    HeadersAdded,
    NeedData,
    Ping,
    Settings,
    StreamAccepted,
    StreamOpened,
    StreamReset,
    WindowGrown,
)
from shim.streaming.spdy.headers import HeaderReader, HeaderWriter

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = 3
CONTROL_LIMIT = 64 * 1024
"""Bytes of a control frame's payload that are accepted."""
DATA_LIMIT = (1 << 24) - 1
"""Bytes one data frame can carry."""
ID_LIMIT = 0x7FFFFFFF

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
_FIN, _UNIDIRECTIONAL = 1, 2
_HEAD = 8
_ID = struct.Struct(">I")
_TWO = struct.Struct(">II")
_OPENING = struct.Struct(">IIBB")


class FrameWriter:
    """Serializes frames in the order in which they are sent: compression of headers depends on it."""

    def __init__(self) -> None:
        self._headers = HeaderWriter()

    def write(self, frame: Frame) -> bytes:
        """Give the bytes of a frame; raise LocalError for what does not fit."""
        match frame:
            case Data():
                if len(frame.data) > DATA_LIMIT:
                    raise LocalError(f"{len(frame.data)} bytes are more than a data frame can carry")
                return _TWO.pack(frame.stream_id, frame.fin << 24 | len(frame.data)) + frame.data
            case StreamOpened():
                head = _OPENING.pack(frame.stream_id, frame.associated, (frame.priority & 7) << 5, 0)
                flags = frame.fin * _FIN | frame.unidirectional * _UNIDIRECTIONAL
                return _control(_SYN_STREAM, head + self._headers.pack(frame.headers), flags)
            case StreamAccepted():
                return _control(_SYN_REPLY, _ID.pack(frame.stream_id) + self._headers.pack(frame.headers), frame.fin)
            case HeadersAdded():
                return _control(_HEADERS, _ID.pack(frame.stream_id) + self._headers.pack(frame.headers), frame.fin)
            case _:
                return _plain(frame)


def _plain(frame: StreamReset | Ping | GoAway | Settings | WindowGrown) -> bytes:
    match frame:
        case StreamReset():
            return _control(_RST_STREAM, _TWO.pack(frame.stream_id, frame.status))
        case Ping():
            return _control(_PING, _ID.pack(frame.ping_id))
        case GoAway():
            return _control(_GOAWAY, _TWO.pack(frame.last_stream_id, frame.status))
        case WindowGrown():
            return _control(_WINDOW_UPDATE, _TWO.pack(frame.stream_id, frame.delta))
        case _:
            entries = b"".join(_TWO.pack(number & 0xFFFFFF, value) for number, value in frame.values)
            return _control(_SETTINGS, _ID.pack(len(frame.values)) + entries)


def _control(kind: int, payload: bytes, flags: int = 0) -> bytes:
    if len(payload) > CONTROL_LIMIT:
        raise LocalError(f"a control frame of {len(payload)} bytes is more than {CONTROL_LIMIT}")
    return _TWO.pack(0x80000000 | VERSION << 16 | kind, flags << 24 | len(payload)) + payload


class FrameReader:
    """Finds frames in a stream of bytes that comes in pieces of any size."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._headers = HeaderReader()
        self._stream = 0
        self._left = -1
        self._fin = False
        self._parsers: dict[int, Callable[[int, bytes], Frame]] = {
            _SYN_STREAM: self._opened,
            _SYN_REPLY: lambda flags, data: StreamAccepted(**self._with_headers(_SYN_REPLY, flags, data)),
            _HEADERS: lambda flags, data: HeadersAdded(**self._with_headers(_HEADERS, flags, data)),
            _RST_STREAM: lambda _flags, data: StreamReset(**_two(data, "RST_STREAM", ("stream_id", "status"))),
            _SETTINGS: lambda _flags, data: _settings(data),
            _PING: lambda _flags, data: Ping(ping_id=_exact(data, 4, "PING", _ID)[0]),
            _GOAWAY: lambda _flags, data: GoAway(**_two(data, "GOAWAY", ("last_stream_id", "status"))),
            _WINDOW_UPDATE: lambda _flags, data: _window(data),
        }

    @property
    def pending(self) -> int:
        """Bytes kept until their frame is complete, and 1 within a data frame: not 0 is no good place to end."""
        return len(self._buffer) or int(self._left >= 0)

    def feed(self, data: bytes) -> None:
        """Take bytes as they came."""
        self._buffer += data

    def next(self) -> Frame | NeedData:
        """Give the next frame, or NEED_DATA; raise ProtocolError for what is none."""
        while True:
            if self._left >= 0:
                return self._part()
            if len(self._buffer) < _HEAD:
                return NEED_DATA
            first, second = _TWO.unpack_from(self._buffer)
            flags, length = second >> 24, second & 0xFFFFFF
            if not first >> 31:
                self._stream, self._left, self._fin = first, length, bool(flags & _FIN)
                del self._buffer[:_HEAD]
                continue
            if first >> 16 & 0x7FFF != VERSION:
                raise ProtocolError(f"a control frame is of version {first >> 16 & 0x7FFF}, not {VERSION}")
            if length > CONTROL_LIMIT:
                raise ProtocolError(f"a control frame of {length} bytes is longer than {CONTROL_LIMIT}")
            if len(self._buffer) < _HEAD + length:
                return NEED_DATA
            payload = bytes(memoryview(self._buffer)[_HEAD : _HEAD + length])
            del self._buffer[: _HEAD + length]
            parser = self._parsers.get(first & 0xFFFF)
            if parser is not None:  # a kind nobody knows is skipped (section 2.2.1)
                return parser(flags, payload)

    def _part(self) -> Data | NeedData:
        if self._left and not self._buffer:
            return NEED_DATA
        if len(self._buffer) <= self._left:
            data = bytes(self._buffer)
            self._buffer.clear()
        else:
            data = bytes(memoryview(self._buffer)[: self._left])
            del self._buffer[: self._left]
        self._left -= len(data)
        if self._left:
            return Data(stream_id=self._stream, data=data)
        self._left = -1
        return Data(stream_id=self._stream, data=data, fin=self._fin)

    def _opened(self, flags: int, data: bytes) -> StreamOpened:
        if len(data) < _OPENING.size:
            raise ProtocolError("SYN_STREAM is too short")
        stream, associated, priority, _slot = _OPENING.unpack_from(data)
        return StreamOpened(
            stream_id=stream & ID_LIMIT,
            headers=self._headers.unpack(data[_OPENING.size :]),
            fin=bool(flags & _FIN),
            unidirectional=bool(flags & _UNIDIRECTIONAL),
            associated=associated & ID_LIMIT,
            priority=priority >> 5,
        )

    def _with_headers(self, kind: int, flags: int, data: bytes) -> dict[str, Any]:
        if len(data) < _ID.size:
            raise ProtocolError(f"a control frame of type {kind} is too short")
        stream = _ID.unpack_from(data)[0] & ID_LIMIT
        return {"stream_id": stream, "headers": self._headers.unpack(data[_ID.size :]), "fin": bool(flags & _FIN)}


def _exact(data: bytes, size: int, name: str, layout: struct.Struct) -> tuple[Any, ...]:
    if len(data) != size:
        raise ProtocolError(f"{name} has {len(data)} bytes, not {size}")
    return layout.unpack(data)


def _two(data: bytes, name: str, keys: tuple[str, str]) -> dict[str, int]:
    first, second = _exact(data, 8, name, _TWO)
    return {keys[0]: first & ID_LIMIT, keys[1]: second}


def _window(data: bytes) -> WindowGrown:
    stream, delta = _exact(data, 8, "WINDOW_UPDATE", _TWO)
    return WindowGrown(stream_id=stream & ID_LIMIT, delta=delta & ID_LIMIT)


def _settings(data: bytes) -> Settings:
    count = _ID.unpack_from(data)[0] if len(data) >= _ID.size else -1
    if len(data) != 4 + 8 * count:
        raise ProtocolError(f"SETTINGS of {len(data)} bytes claims {count} entries")
    pairs = struct.iter_unpack(">II", data[4:])
    return Settings(values=tuple((number & 0xFFFFFF, value) for number, value in pairs))
