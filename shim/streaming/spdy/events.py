"""Events of a SPDY connection: one a frame, but DATA, which may come in several. Sent and received are the same classes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

Headers = tuple[tuple[str, str], ...]
"""Names in lower case and values; a name may repeat. Characters are those of latin-1, so that no byte is lost."""


class ResetStatus(IntEnum):
    """Status of a RST_STREAM (section 2.6.3)."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    UNSUPPORTED_VERSION = 4
    CANCEL = 5
    INTERNAL_ERROR = 6
    FLOW_CONTROL_ERROR = 7
    STREAM_IN_USE = 8
    STREAM_ALREADY_CLOSED = 9
    FRAME_TOO_LARGE = 11


class GoAwayStatus(IntEnum):
    """Status of a GOAWAY (section 2.6.6)."""

    OK = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOpened:
    """SYN_STREAM: its sender opened a stream."""

    stream_id: int
    headers: Headers = ()
    fin: bool = False
    unidirectional: bool = False
    associated: int = 0
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamAccepted:
    """SYN_REPLY: its sender took the stream that the other side opened."""

    stream_id: int
    headers: Headers = ()
    fin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadersAdded:
    """HEADERS: more headers of an open stream."""

    stream_id: int
    headers: Headers = ()
    fin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """DATA, or as much of it as has arrived: `fin` comes with the last part only."""

    stream_id: int
    data: bytes = b""
    fin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReset:
    """RST_STREAM: the stream is gone for both sides. A status beyond those of ResetStatus is kept as its number."""

    stream_id: int
    status: int = ResetStatus.CANCEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """PING: the same is sent back when the number is the peer's (`Connection.is_own`)."""

    ping_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GoAway:
    """GOAWAY: no stream after `last_stream_id` was or will be looked at."""

    last_stream_id: int
    status: int = GoAwayStatus.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """SETTINGS: number and value of each; flags are not kept."""

    values: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowGrown:
    """WINDOW_UPDATE: so many more bytes may come; stream 0 is the whole connection."""

    stream_id: int
    delta: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """What the peer did with one stream is against the rules; the stream is gone here. Answer with a StreamReset."""

    stream_id: int
    status: ResetStatus


class _Sentinel(Enum):
    NEED_DATA = "more bytes are needed for the next event"


NEED_DATA: Final = _Sentinel.NEED_DATA
NeedData = _Sentinel

Opening = StreamOpened | StreamAccepted
OfStream = StreamOpened | StreamAccepted | HeadersAdded | Data
Frame = StreamOpened | StreamAccepted | HeadersAdded | Data | StreamReset | Ping | GoAway | Settings | WindowGrown
Event = Frame | Refused
