"""What goes wrong in SPDY.

SpdyError
├ ProtocolError   the peer broke the protocol: the connection cannot go on; `status` is what a GOAWAY should say
└ LocalError      we asked for something the protocol forbids: nothing was sent
"""

from __future__ import annotations

from shim.streaming.spdy.events import GoAwayStatus


class SpdyError(Exception):
    """Base of the tree."""


class ProtocolError(SpdyError):
    """The peer broke the protocol in a way that ends the connection."""

    def __init__(self, message: str, status: GoAwayStatus = GoAwayStatus.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.status = status


class LocalError(SpdyError):
    """The event may not be sent in this state."""
