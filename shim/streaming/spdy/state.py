"""What each side of a stream may send: one table for both roles, and for both directions.

A stream has two halves. That of the party who opened it begins with SYN_STREAM, the other with SYN_REPLY; `fin` closes
either one, a unidirectional stream has only the first, and a reset ends both.

    party      idle                  open                          closed
    ───────────────────────────────────────────────────────────────────────
    opener     StreamOpened → open   Data, HeadersAdded → open     nothing
    acceptor   StreamAccepted → open Data, HeadersAdded → open     nothing
    either     …with fin → closed    …with fin → closed
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from shim.streaming.spdy.events import Data, HeadersAdded, ResetStatus, StreamAccepted, StreamOpened

if TYPE_CHECKING:
    from shim.streaming.spdy.events import OfStream


class Party(Enum):
    """Who of the two is meant, whatever the role of the connection."""

    OPENER = auto()
    ACCEPTOR = auto()

    @property
    def other(self) -> Party:
        """The one across."""
        return Party.ACCEPTOR if self is Party.OPENER else Party.OPENER


class Half(Enum):
    """State of one direction."""

    IDLE = auto()
    OPEN = auto()
    CLOSED = auto()


_CARRIED: dict[type[StreamOpened | StreamAccepted | HeadersAdded | Data], Half] = {Data: Half.OPEN, HeadersAdded: Half.OPEN}

TRANSITIONS: dict[Party, dict[Half, dict[type[OfStream], Half]]] = {
    Party.OPENER: {Half.IDLE: {StreamOpened: Half.OPEN}, Half.OPEN: _CARRIED, Half.CLOSED: {}},
    Party.ACCEPTOR: {Half.IDLE: {StreamAccepted: Half.OPEN}, Half.OPEN: _CARRIED, Half.CLOSED: {}},
}


class StreamState:
    """The two halves of one stream."""

    __slots__ = ("halves", "mine")

    def __init__(self, mine: Party) -> None:
        """`mine`: which party we are in this stream."""
        self.mine = mine
        self.halves = {Party.OPENER: Half.IDLE, Party.ACCEPTOR: Half.IDLE}

    def advance(self, party: Party, event: OfStream) -> ResetStatus | None:
        """Take an event of `party`; give why it may not come, or None."""
        before = self.halves[party]
        after = TRANSITIONS[party][before].get(type(event))
        if after is None:
            if isinstance(event, StreamAccepted) and before is not Half.IDLE:
                return ResetStatus.STREAM_IN_USE
            return ResetStatus.STREAM_ALREADY_CLOSED if before is Half.CLOSED else ResetStatus.PROTOCOL_ERROR
        if isinstance(event, StreamOpened) and event.unidirectional:
            self.halves[Party.ACCEPTOR] = Half.CLOSED
        self.halves[party] = Half.CLOSED if event.fin else after
        return None

    @property
    def over(self) -> bool:
        """Whether nothing more can come from either side."""
        return all(half is Half.CLOSED for half in self.halves.values())
