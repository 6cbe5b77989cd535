"""Connections: streams' lives, back to back and byte by byte, and peers that break the rules."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shim.streaming import spdy
from shim.streaming.spdy.codec import FrameWriter
from shim.streaming.spdy.state import TRANSITIONS, Half, Party, StreamState
from tests.unit.shim.streaming.spdy_pair import Pair, events_of, joined

HEADERS = (("streamtype", "stdin"),)


def opened(pair: Pair) -> int:
    number = pair.client.next_stream_id()
    event = spdy.StreamOpened(stream_id=number, headers=HEADERS)
    assert pair.to_server(event) == [event]
    reply = spdy.StreamAccepted(stream_id=number)
    assert pair.to_client(reply) == [reply]
    return number


def raw(*frames: spdy.Event) -> bytes:
    """Give the bytes of frames that a well-behaved peer would not send."""
    writer = FrameWriter()
    return b"".join(writer.write(frame) for frame in frames if not isinstance(frame, spdy.Refused))


def test_a_stream_from_its_beginning_to_its_end() -> None:
    pair = Pair()
    number = opened(pair)
    assert joined(pair.to_server(spdy.Data(stream_id=number, data=b"to you"))) == [spdy.Data(stream_id=number, data=b"to you")]
    half = spdy.Data(stream_id=number, fin=True)
    assert pair.to_server(half) == [half]
    assert pair.client.streams == pair.server.streams == 1
    assert not pair.client.writable(number)
    last = spdy.Data(stream_id=number, data=b"b", fin=True)
    assert pair.to_client(last) == [last]
    assert pair.client.streams == pair.server.streams == 0


def test_ids_of_both_sides() -> None:
    pair = Pair()
    assert [opened(pair), opened(pair)] == [1, 3]
    mine = spdy.StreamOpened(stream_id=pair.server.next_stream_id())
    assert mine.stream_id == 2
    assert pair.to_client(mine) == [mine]
    assert pair.to_server(spdy.StreamAccepted(stream_id=2)) == [spdy.StreamAccepted(stream_id=2)]
    assert pair.server.last_accepted == 3
    assert pair.client.is_own(5)
    assert not pair.client.is_own(4)


def test_the_table_is_whole() -> None:
    for party in Party:
        assert set(TRANSITIONS[party]) == set(Half)
        assert party.other.other is party
        assert not TRANSITIONS[party][Half.CLOSED]


def test_a_unidirectional_stream_is_over_with_its_opener() -> None:
    pair = Pair()
    event = spdy.StreamOpened(stream_id=1, unidirectional=True)
    assert pair.to_server(event) == [event]
    with pytest.raises(spdy.LocalError):
        pair.server.send(spdy.StreamAccepted(stream_id=1))
    assert pair.to_server(spdy.Data(stream_id=1, fin=True)) == [spdy.Data(stream_id=1, fin=True)]
    assert pair.client.streams == pair.server.streams == 0


def test_a_stream_may_be_opened_and_finished_at_once() -> None:
    state = StreamState(Party.ACCEPTOR)
    assert state.advance(Party.OPENER, spdy.StreamOpened(stream_id=1, fin=True)) is None
    assert not state.over
    assert state.advance(Party.ACCEPTOR, spdy.StreamAccepted(stream_id=1, fin=True)) is None
    assert state.over


def test_headers_may_follow() -> None:
    pair = Pair()
    number = opened(pair)
    more = spdy.HeadersAdded(stream_id=number, headers=(("more", "x"),), fin=True)
    assert pair.to_server(more) == [more]


def test_what_we_must_not_send() -> None:
    pair = Pair()
    number = opened(pair)
    server, client = pair.server, pair.client
    for wrong in (
        lambda: client.send(spdy.StreamOpened(stream_id=number)),
        lambda: client.send(spdy.StreamOpened(stream_id=4)),
        lambda: client.send(spdy.StreamAccepted(stream_id=number)),
        lambda: server.send(spdy.StreamAccepted(stream_id=number)),
        lambda: server.send(spdy.Data(stream_id=77)),
        lambda: server.send(spdy.StreamReset(stream_id=0)),
    ):
        with pytest.raises(spdy.LocalError):
            wrong()
    client.send(spdy.Data(stream_id=number, fin=True))
    with pytest.raises(spdy.LocalError, match="already_closed"):
        client.send(spdy.Data(stream_id=number, data=b"late"))


def test_data_waits_for_our_reply_but_not_for_theirs() -> None:
    pair = Pair()
    pair.to_server(spdy.StreamOpened(stream_id=1))
    with pytest.raises(spdy.LocalError):
        pair.server.send(spdy.Data(stream_id=1, data=b"x"))
    assert joined(pair.to_server(spdy.Data(stream_id=1, data=b"early"))) == [spdy.Data(stream_id=1, data=b"early")]


def test_a_reset_ends_both_halves_and_late_frames_are_ignored() -> None:
    pair = Pair()
    number = opened(pair)
    late = pair.client.send(spdy.Data(stream_id=number, data=b"on its way", fin=True))
    reset = spdy.StreamReset(stream_id=number, status=spdy.ResetStatus.CANCEL)
    data = pair.server.send(reset)
    assert events_of(pair.server, late) == []
    assert events_of(pair.client, data) == [reset]
    assert events_of(pair.client, data) == []  # again: it is gone already
    assert events_of(pair.server, pair.client.send(reset)) == []
    assert pair.client.streams == pair.server.streams == 0
    assert not pair.server.knows(number)


def test_pings_settings_and_windows_pass() -> None:
    pair = Pair()
    number = opened(pair)
    for event in (
        spdy.Ping(ping_id=1),
        spdy.Settings(values=((7, 1000),)),
        spdy.WindowGrown(stream_id=0, delta=5),
        spdy.WindowGrown(stream_id=number, delta=5),
        spdy.GoAway(last_stream_id=0),
    ):
        assert pair.to_server(event) == [event]


def test_window_updates_are_due_with_half_a_window() -> None:
    pair = Pair(step=0)
    number = opened(pair)
    assert pair.server.consumed(number, 100) == b""
    updates = events_of(pair.client, pair.server.consumed(number, spdy.INITIAL_WINDOW // 2))
    size = spdy.INITIAL_WINDOW // 2 + 100
    assert updates == [spdy.WindowGrown(stream_id=number, delta=size), spdy.WindowGrown(stream_id=0, delta=size)]
    pair.server.send(spdy.StreamReset(stream_id=number))
    gone = events_of(Pair().client, pair.server.consumed(number, spdy.INITIAL_WINDOW))
    assert gone == [spdy.WindowGrown(stream_id=0, delta=spdy.INITIAL_WINDOW)]


def test_too_many_streams_are_refused_one_by_one() -> None:
    pair = Pair(max_streams=2)
    assert [opened(pair), opened(pair)] == [1, 3]
    refused = spdy.Refused(stream_id=5, status=spdy.ResetStatus.REFUSED_STREAM)
    assert pair.to_server(spdy.StreamOpened(stream_id=5)) == [refused]
    pair.to_client(spdy.StreamReset(stream_id=1))
    assert pair.to_client(spdy.StreamReset(stream_id=5)) == [spdy.StreamReset(stream_id=5)]
    assert opened(pair) == 7


def test_after_our_goaway_no_stream_is_taken() -> None:
    pair = Pair()
    opened(pair)
    pair.to_client(spdy.GoAway(last_stream_id=1))
    assert pair.to_server(spdy.StreamOpened(stream_id=3)) == []
    assert joined(pair.to_server(spdy.Data(stream_id=1, data=b"x"))) == [spdy.Data(stream_id=1, data=b"x")]


def test_the_end_within_a_frame_shows() -> None:
    server = spdy.Connection(spdy.Role.SERVER)
    assert not server.mid_frame
    server.receive_data(b"\x80\x03")
    assert server.next_event() is spdy.NEED_DATA
    assert server.mid_frame


OPEN = spdy.StreamOpened(stream_id=1)


@pytest.mark.parametrize(
    ("frames", "status"),
    [
        ((spdy.Data(stream_id=1, data=b"x"),), spdy.ResetStatus.INVALID_STREAM),
        ((spdy.Data(stream_id=2, data=b"x"),), spdy.ResetStatus.INVALID_STREAM),
        ((spdy.StreamAccepted(stream_id=2),), spdy.ResetStatus.INVALID_STREAM),
        ((spdy.HeadersAdded(stream_id=9),), spdy.ResetStatus.INVALID_STREAM),
        ((OPEN, spdy.StreamAccepted(stream_id=1)), spdy.ResetStatus.STREAM_IN_USE),
        ((OPEN, spdy.Data(stream_id=1, fin=True), spdy.Data(stream_id=1)), spdy.ResetStatus.STREAM_ALREADY_CLOSED),
        ((OPEN, spdy.Data(stream_id=1, fin=True), spdy.HeadersAdded(stream_id=1)), spdy.ResetStatus.STREAM_ALREADY_CLOSED),
    ],
)
def test_faults_of_one_stream(frames: tuple[spdy.Event, ...], status: spdy.ResetStatus) -> None:
    server = spdy.Connection(spdy.Role.SERVER)
    last = events_of(server, raw(*frames))[-1]
    assert isinstance(last, spdy.Refused)
    assert last.status is status
    assert server.send(spdy.StreamReset(stream_id=last.stream_id, status=last.status))
    assert server.streams == 0
    assert events_of(server, raw(spdy.Ping(ping_id=1))) == [spdy.Ping(ping_id=1)]


def test_data_before_the_reply_is_a_fault_of_the_acceptor() -> None:
    pair = Pair()
    pair.client.send(spdy.StreamOpened(stream_id=1))
    refused = spdy.Refused(stream_id=1, status=spdy.ResetStatus.PROTOCOL_ERROR)
    assert events_of(pair.client, raw(spdy.Data(stream_id=1, data=b"x"))) == [refused]


@pytest.mark.parametrize(
    "frames",
    [
        (spdy.StreamOpened(stream_id=0),),
        (spdy.StreamOpened(stream_id=2),),
        (OPEN, OPEN),
        (spdy.StreamOpened(stream_id=5), spdy.StreamOpened(stream_id=3)),
        (spdy.StreamReset(stream_id=1),),
        (spdy.StreamReset(stream_id=0),),
        (spdy.Data(stream_id=0, data=b"x"),),
        (spdy.StreamAccepted(stream_id=0),),
        (spdy.HeadersAdded(stream_id=0),),
        (OPEN, spdy.WindowGrown(stream_id=1, delta=0)),
        (spdy.WindowGrown(stream_id=5, delta=1),),
    ],
)
def test_faults_of_the_connection(frames: tuple[spdy.Event, ...]) -> None:
    server = spdy.Connection(spdy.Role.SERVER)
    with pytest.raises(spdy.ProtocolError) as caught:
        events_of(server, raw(*frames), step=1)
    assert caught.value.status is spdy.GoAwayStatus.PROTOCOL_ERROR


def test_stream_ids_run_out() -> None:
    client = spdy.Connection(spdy.Role.CLIENT)
    client._last_own = 0x7FFFFFFF
    with pytest.raises(spdy.LocalError):
        client.next_stream_id()


ACTIONS = st.lists(
    st.tuples(st.booleans(), st.sampled_from(["open", "accept", "data", "fin", "reset", "headers"]), st.integers(0, 5)),
    max_size=40,
)


def _event(action: str, connection: spdy.Connection, number: int) -> spdy.Event:
    if action == "open":
        return spdy.StreamOpened(stream_id=connection.next_stream_id(), headers=HEADERS)
    kinds: dict[str, spdy.Event] = {
        "accept": spdy.StreamAccepted(stream_id=number),
        "data": spdy.Data(stream_id=number, data=b"some data"),
        "fin": spdy.Data(stream_id=number, fin=True),
        "reset": spdy.StreamReset(stream_id=number),
        "headers": spdy.HeadersAdded(stream_id=number, headers=HEADERS),
    }
    return kinds[action]


@settings(max_examples=300)
@given(ACTIONS, st.integers(min_value=1, max_value=9))
def test_whatever_two_machines_may_say_they_understand(actions: list[tuple[bool, str, int]], step: int) -> None:
    pair = Pair(step=step)
    for by_client, action, number in actions:
        sender = pair.client if by_client else pair.server
        event = _event(action, sender, number)
        if isinstance(event, spdy.StreamReset) and not sender.knows(number):
            continue
        assert not isinstance(event, spdy.Refused)
        try:
            data = sender.send(event)
        except spdy.LocalError:
            continue
        seen = events_of(pair.server if by_client else pair.client, data, step=step)
        assert joined(seen) == [event]
        assert pair.client.streams == pair.server.streams
