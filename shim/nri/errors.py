"""What goes wrong between the daemon and an NRI plugin.

NriError
├ ProtocolError   the peer broke the protocol: the connection cannot go on
├ Oversized       a message is larger than ttrpc carries: nothing was sent
├ Refused         the peer answered a call with an error
└ Gone            the peer has closed the connection, or did not answer in time
"""

from __future__ import annotations

UNIMPLEMENTED = 12
"""The gRPC status code of a method that is not served."""


class NriError(Exception):
    """Base of the tree."""


class ProtocolError(NriError):
    """The peer broke the protocol in a way that ends the connection."""


class Oversized(NriError):  # noqa: N818 - named after what the message is
    """A message of `size` bytes was not sent: `limit` is the most."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a message of {size} bytes is larger than the {limit} that ttrpc carries")
        self.size = size
        self.limit = limit


class Refused(NriError):  # noqa: N818 - named after what the peer did
    """The peer answered with a status: `code` is gRPC's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message or f"status {code}")
        self.code = code


class Gone(NriError):  # noqa: N818 - named after what the peer is
    """The peer is not there any more."""
