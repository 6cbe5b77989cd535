"""SPDY/3.1 without input or output: bytes in, events out, and back (draft-mbelshe-httpbis-spdy-00 with 3.1's session window).

    connection = Connection(Role.SERVER)
    connection.receive_data(data)
    while (event := connection.next_event()) is not NEED_DATA: ...
    transport.write(connection.send(StreamAccepted(stream_id=1)))

The same events are sent and received, and both roles share one state table (state.py). No sockets, clocks or threads here.
"""

from shim.streaming.spdy.connection import INITIAL_WINDOW, Connection, Role
from shim.streaming.spdy.errors import LocalError, ProtocolError, SpdyError
from shim.streaming.spdy.events import (
    NEED_DATA,
    Data,
    Event,
    GoAway,
    GoAwayStatus,
    Headers,
    HeadersAdded,
    Ping,
    Refused,
    ResetStatus,
    Settings,
    StreamAccepted,
    StreamOpened,
    StreamReset,
    WindowGrown,
)

__all__ = [
    "INITIAL_WINDOW",
    "NEED_DATA",
    "Connection",
    "Data",
    "Event",
    "GoAway",
    "GoAwayStatus",
    "Headers",
    "HeadersAdded",
    "LocalError",
    "Ping",
    "ProtocolError",
    "Refused",
    "ResetStatus",
    "Role",
    "Settings",
    "SpdyError",
    "StreamAccepted",
    "StreamOpened",
    "StreamReset",
    "WindowGrown",
]
