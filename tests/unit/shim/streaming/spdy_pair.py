"""Two SPDY machines back to back, with every byte that passes between them delivered alone."""

from __future__ import annotations

from shim.streaming import spdy


def events_of(connection: spdy.Connection, data: bytes, *, step: int = 0) -> list[spdy.Event]:
    """Feed bytes, `step` at a time (0: all at once), and give the events."""
    found: list[spdy.Event] = []
    for start in range(0, len(data), step or max(len(data), 1)):
        connection.receive_data(data[start : start + step] if step else data)
        while (event := connection.next_event()) is not spdy.NEED_DATA:
            assert not isinstance(event, type(spdy.NEED_DATA))
            found.append(event)
    return found


class Pair:
    """A client and a server."""

    def __init__(self, *, step: int = 1, max_streams: int = 100) -> None:
        self.client = spdy.Connection(spdy.Role.CLIENT, max_streams=max_streams)
        self.server = spdy.Connection(spdy.Role.SERVER, max_streams=max_streams)
        self.step = step

    def to_server(self, *events: spdy.Event) -> list[spdy.Event]:
        """Send events as the client; give what the server sees."""
        return events_of(self.server, self._bytes(self.client, events), step=self.step)

    def to_client(self, *events: spdy.Event) -> list[spdy.Event]:
        """Send events as the server; give what the client sees."""
        return events_of(self.client, self._bytes(self.server, events), step=self.step)

    @staticmethod
    def _bytes(connection: spdy.Connection, events: tuple[spdy.Event, ...]) -> bytes:
        out = b""
        for event in events:
            assert not isinstance(event, spdy.Refused)
            out += connection.send(event)
        return out


def joined(events: list[spdy.Event]) -> list[spdy.Event]:
    """Put the parts of data frames together."""
    out: list[spdy.Event] = []
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, spdy.Data) and isinstance(last, spdy.Data) and last.stream_id == event.stream_id and not last.fin:
            out[-1] = spdy.Data(stream_id=event.stream_id, data=last.data + event.data, fin=event.fin)
        else:
            out.append(event)
    return out
