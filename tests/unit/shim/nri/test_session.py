"""The NRI protocol without sockets: two sessions back to back, bytes one at a time, and peers that break the rules."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.gen.ttrpc.v1 import ttrpc_pb2
from shim.nri import mux, ttrpc
from shim.nri.errors import UNIMPLEMENTED, Oversized, ProtocolError
from shim.nri.session import INVALID_ARGUMENT, RESOURCE_EXHAUSTED, Answered, Called, Session


def pair() -> tuple[Session, Session]:
    return Session(), Session(plugin=True)


def feed(session: Session, data: bytes, step: int = 1) -> list[Answered | Called]:
    events: list[Answered | Called] = []
    for start in range(0, len(data), step):
        events += session.feed(data[start : start + step])
    return events


def raw(connection: int, stream: int, kind: int, data: bytes, flags: int = 0) -> bytes:
    message = struct.pack(">IIBB", len(data), stream, kind, flags) + data
    return struct.pack(">II", connection, len(message)) + message


def request(**fields) -> bytes:
    return ttrpc_pb2.Request(**fields).SerializeToString()


def refusal(session: Session) -> tuple[int, str]:
    """The one refusal that waits to be sent."""
    ((_connection, message),) = mux.Demux().feed(session.pending())
    (frame,) = ttrpc.Decoder().feed(message)
    status = ttrpc_pb2.Response.FromString(frame.data).status
    return status.code, status.message


def test_the_bytes_of_a_call() -> None:
    stream, data = Session().call("S", "M", b"\x01", 5)
    body = b"\x0a\x01S\x12\x01M\x1a\x01\x01\x20\x05"
    assert stream == 1
    assert data == bytes([0, 0, 0, 1, 0, 0, 0, 10 + len(body), 0, 0, 0, len(body), 0, 0, 0, 1, 1, 0]) + body


@pytest.mark.parametrize("step", [1, 3, 10_000])
def test_calls_both_ways(step: int) -> None:
    runtime, plugin = pair()
    stream, data = runtime.call("nri.Plugin", "Configure", b"c", 7)
    (called,) = feed(plugin, data, step)
    assert called == Called(stream, "nri.Plugin", "Configure", b"c", 7)
    other, more = plugin.call("nri.Runtime", "UpdateContainers", b"u")
    (asked,) = feed(runtime, more, step)
    assert feed(plugin, runtime.refuse(asked.stream, 5, "no such"), step) == [Answered(other, b"", 5, "no such")]
    assert feed(runtime, plugin.answer(called.stream, b"done"), step) == [Answered(stream, b"done")]


def test_answers_out_of_order() -> None:
    runtime, plugin = pair()
    calls = [runtime.call("s", name, b"") for name in ("a", "b", "c")]
    asked = feed(plugin, b"".join(data for _, data in calls), 100)
    answers = [plugin.answer(event.stream, event.method.encode()) for event in reversed(asked)]
    assert feed(runtime, b"".join(answers)) == [Answered(5, b"c"), Answered(3, b"b"), Answered(1, b"a")]


@given(size=st.integers(0, 3 * mux.FIRST), step=st.integers(1, 5000))
def test_any_size_survives(size: int, step: int) -> None:
    runtime, plugin = pair()
    _, data = runtime.call("s", "m", bytes(size))
    (called,) = feed(plugin, data, step)
    assert called.payload == bytes(size)


def test_a_message_takes_two_frames_at_most_the_first_of_one_page() -> None:
    _, data = Session().call("s", "m", bytes(100_000))
    sizes = [len(payload) for _, payload in mux.Demux().feed(data)]
    assert sizes == [4096, 10 + 100_010 - 4096]
    assert [len(payload) for _, payload in mux.Demux().feed(mux.frames(1, bytes(4096)))] == [4096]


def test_what_is_too_large_is_not_sent() -> None:
    runtime, plugin = pair()
    with pytest.raises(Oversized) as caught:
        runtime.call("s", "m", bytes(ttrpc.MOST))
    assert (caught.value.limit, caught.value.size) == (ttrpc.MOST, ttrpc.MOST + 11)
    stream, data = runtime.call("s", "m", b"")
    assert stream == 1  # the number was not spent
    (called,) = feed(plugin, data)
    with pytest.raises(Oversized):
        plugin.answer(called.stream, bytes(ttrpc.MOST + 1))
    assert feed(runtime, plugin.refuse(called.stream, 8, "too large")) == [Answered(1, b"", 8, "too large")]


def test_an_answer_nobody_waits_for_is_passed_over() -> None:
    runtime, plugin = pair()
    stream, data = runtime.call("s", "m", b"")
    (called,) = feed(plugin, data)
    runtime.forget(stream)
    assert feed(runtime, plugin.answer(called.stream, b"late")) == []


def test_unknown_connections_are_passed_over() -> None:
    assert feed(Session(), raw(9, 1, ttrpc.REQUEST, request(service="s")) + struct.pack(">II", 0, 0)) == []


@pytest.mark.parametrize(
    ("stream", "kind", "data", "flags", "code"),
    [
        (2, ttrpc.REQUEST, request(service="s"), 0, INVALID_ARGUMENT),
        (1, ttrpc.REQUEST, b"\xff\xff", 0, INVALID_ARGUMENT),
        (1, ttrpc.REQUEST, request(service="s"), ttrpc.REMOTE_OPEN, UNIMPLEMENTED),
        (1, ttrpc.DATA, b"x", 0, UNIMPLEMENTED),
    ],
)
def test_calls_that_cannot_be_served(stream: int, kind: int, data: bytes, flags: int, code: int) -> None:
    session = Session()
    assert feed(session, raw(mux.RUNTIME_SERVICE, stream, kind, data, flags)) == []
    assert refusal(session)[0] == code
    assert session.pending() == b""


def test_a_stream_is_used_once() -> None:
    session = Session()
    data = raw(mux.RUNTIME_SERVICE, 3, ttrpc.REQUEST, request(service="s"))
    assert len(feed(session, data)) == 1
    assert feed(session, data) == []
    assert refusal(session)[0] == INVALID_ARGUMENT


def test_responses_on_the_wrong_side_are_passed_over() -> None:
    assert feed(Session(), raw(mux.RUNTIME_SERVICE, 1, ttrpc.RESPONSE, b"")) == []
    assert feed(Session(), raw(mux.RUNTIME_SERVICE, 1, 99, b"")) == []


def test_oversized_messages_are_passed_over_byte_by_byte() -> None:
    session = Session()
    size = ttrpc.MOST + 5
    header = struct.pack(">IIBB", size, 1, ttrpc.REQUEST, 0)
    assert feed(session, struct.pack(">II", mux.RUNTIME_SERVICE, len(header)) + header) == []
    assert refusal(session)[0] == RESOURCE_EXHAUSTED
    for chunk in (1 << 20,) * 4 + (5,):
        assert list(session.feed(struct.pack(">II", mux.RUNTIME_SERVICE, chunk) + bytes(chunk))) == []
    (event,) = feed(session, raw(mux.RUNTIME_SERVICE, 3, ttrpc.REQUEST, request(service="s", method="m")))
    assert isinstance(event, Called)


def test_an_oversized_answer_is_an_error_of_that_call() -> None:
    session = Session()
    session.call("s", "m", b"")
    header = struct.pack(">IIBB", ttrpc.MOST + 1, 1, ttrpc.RESPONSE, 0)
    (event,) = feed(session, struct.pack(">II", mux.PLUGIN_SERVICE, len(header)) + header)
    assert isinstance(event, Answered)
    assert event.code == RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">II", 1, mux.MOST + 1),
        b"GET / HTTP/1.1\r\n",
        raw(mux.PLUGIN_SERVICE, 1, ttrpc.DATA, b""),
        raw(mux.PLUGIN_SERVICE, 1, ttrpc.RESPONSE, b"\xff\xff"),
    ],
)
def test_what_ends_a_connection(data: bytes) -> None:
    session = Session()
    session.call("s", "m", b"")
    with pytest.raises(ProtocolError):
        feed(session, data)


@given(data=st.binary(max_size=300))
def test_garbage_never_does_worse_than_a_protocol_error(data: bytes) -> None:
    session = Session()
    session.call("s", "m", b"")
    try:
        feed(session, data, 7)
    except ProtocolError:
        return
    session.pending()
