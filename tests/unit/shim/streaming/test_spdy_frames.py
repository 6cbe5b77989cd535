"""Frames: layout, any cut of the bytes, and what is none."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.streaming import spdy
from shim.streaming.spdy.codec import CONTROL_LIMIT, FrameReader, FrameWriter
from shim.streaming.spdy.dictionary import DICTIONARY
from shim.streaming.spdy.events import NEED_DATA, Frame
from shim.streaming.spdy.headers import BLOCK_LIMIT, HeaderReader, HeaderWriter
from tests.unit.shim.streaming.spdy_pair import joined

FRAMES: tuple[Frame, ...] = (
    spdy.StreamOpened(stream_id=1, headers=(("streamtype", "error"),), fin=True, associated=7, priority=5),
    spdy.StreamOpened(stream_id=3, headers=(("a", "x"), ("a", "y"), ("b", "")), unidirectional=True),
    spdy.StreamAccepted(stream_id=1),
    spdy.StreamAccepted(stream_id=3, headers=(("x-y", "ä"),), fin=True),
    spdy.HeadersAdded(stream_id=1, headers=(("k", "v" * 1000),), fin=True),
    spdy.Data(stream_id=1, data=b"hello"),
    spdy.Data(stream_id=3, data=b"", fin=True),
    spdy.StreamReset(stream_id=9, status=spdy.ResetStatus.CANCEL),
    spdy.StreamReset(stream_id=9, status=4_000_000_000),
    spdy.Ping(ping_id=0xFFFFFFFF),
    spdy.GoAway(last_stream_id=11, status=spdy.GoAwayStatus.PROTOCOL_ERROR),
    spdy.Settings(values=((4, 100), (7, 65536))),
    spdy.WindowGrown(stream_id=0, delta=0x7FFFFFFF),
)


def control(kind: int, payload: bytes, *, flags: int = 0, version: int = 3, length: int | None = None) -> bytes:
    head = struct.pack(">HHI", 0x8000 | version, kind, flags << 24 | (len(payload) if length is None else length))
    return head + payload


def read(data: bytes, *, step: int = 0) -> list[Frame]:
    reader = FrameReader()
    found: list[Frame] = []
    for start in range(0, len(data), step or max(1, len(data))):
        reader.feed(data[start : start + step] if step else data)
        while not isinstance(frame := reader.next(), type(NEED_DATA)):
            found.append(frame)
    return found


def test_the_dictionary_is_the_one_of_the_specification() -> None:
    assert len(DICTIONARY) == 1423
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2


@pytest.mark.parametrize("step", [0, 1, 2, 7])
def test_every_frame_survives_the_way(step: int) -> None:
    writer = FrameWriter()
    data = b"".join(writer.write(frame) for frame in FRAMES)
    assert joined(list(read(data, step=step))) == list(FRAMES)


def test_layout_of_plain_frames() -> None:
    writer = FrameWriter()
    assert writer.write(spdy.Data(stream_id=5, data=b"ab", fin=True)) == b"\0\0\0\x05\x01\0\0\x02ab"
    assert writer.write(spdy.Ping(ping_id=1)) == b"\x80\x03\0\x06\0\0\0\x04\0\0\0\x01"
    assert writer.write(spdy.StreamReset(stream_id=3, status=5)) == b"\x80\x03\0\x03\0\0\0\x08\0\0\0\x03\0\0\0\x05"
    assert writer.write(spdy.WindowGrown(stream_id=3, delta=9)) == b"\x80\x03\0\x09\0\0\0\x08\0\0\0\x03\0\0\0\x09"
    assert writer.write(spdy.GoAway(last_stream_id=3)) == b"\x80\x03\0\x07\0\0\0\x08\0\0\0\x03\0\0\0\0"


def test_data_comes_before_its_frame_is_complete() -> None:
    reader = FrameReader()
    reader.feed(struct.pack(">II", 1, 1 << 24 | 0xFFFFFF))  # announces 16 MiB
    assert reader.next() is NEED_DATA
    for _ in range(3):
        reader.feed(b"x" * 1000)
        assert reader.next() == spdy.Data(stream_id=1, data=b"x" * 1000)
        assert reader.next() is NEED_DATA
    assert reader.pending


def test_reserved_bits_are_ignored() -> None:
    assert read(control(9, struct.pack(">II", 1 << 31 | 3, 1 << 31 | 4))) == [spdy.WindowGrown(stream_id=3, delta=4)]


def test_unknown_kinds_are_skipped() -> None:
    assert read(control(5, b"") + control(99, b"anything") + control(6, b"\0\0\0\x01")) == [spdy.Ping(ping_id=1)]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(control(6, b"\0\0\0\x01", version=2), id="version"),
        pytest.param(control(6, b"\0\0\0"), id="short ping"),
        pytest.param(control(6, b"\0\0\0\0\0"), id="long ping"),
        pytest.param(control(3, b"\0\0\0\x01"), id="short reset"),
        pytest.param(control(7, b"\0\0\0\x01"), id="goaway of version 2"),
        pytest.param(control(9, b""), id="empty window update"),
        pytest.param(control(4, b""), id="empty settings"),
        pytest.param(control(4, b"\0\0\0\x02" + bytes(8)), id="settings count"),
        pytest.param(control(4, b"\xff\xff\xff\xff" + bytes(8)), id="settings count huge"),
        pytest.param(control(1, bytes(9)), id="short syn_stream"),
        pytest.param(control(1, bytes(10)), id="syn_stream without headers"),
        pytest.param(control(2, b"\0\0"), id="short syn_reply"),
        pytest.param(control(8, b"\0\0\0\x01garbage"), id="headers that are not compressed"),
        pytest.param(control(1, b"", length=CONTROL_LIMIT + 1), id="huge control frame"),
        pytest.param(control(77, b"", length=0xFFFFFF), id="huge unknown frame"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n".replace(b"G", b"\xff", 1), id="text"),
    ],
)
def test_what_is_no_frame_ends_the_connection(data: bytes) -> None:
    with pytest.raises(spdy.ProtocolError):
        read(data)


def compressed(block: bytes) -> bytes:
    deflate = zlib.compressobj(zdict=DICTIONARY)
    return deflate.compress(block) + deflate.flush(zlib.Z_SYNC_FLUSH)


def word(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0\0\0\x01", id="header missing"),
        pytest.param(b"\xff\xff\xff\xff", id="count huge"),
        pytest.param(b"\0\0\0\x01" + b"\xff\xff\xff\xff" + b"a", id="length huge"),
        pytest.param(b"\0\0\0\x01" + word(b"A") + word(b"v"), id="upper case"),
        pytest.param(b"\0\0\0\x01" + word(b"") + word(b"v"), id="no name"),
        pytest.param(b"\0\0\0\x02" + (word(b"a") + word(b"v")) * 2, id="twice"),
        pytest.param(b"\0\0\0\x01" + word(b"a") + word(b"v") + b"x", id="bytes behind"),
        pytest.param(bytes(BLOCK_LIMIT + 1), id="too long"),
    ],
)
def test_bad_header_blocks(block: bytes) -> None:
    with pytest.raises(spdy.ProtocolError):
        HeaderReader().unpack(compressed(block))


def test_a_header_bomb_is_not_unpacked() -> None:
    bomb = compressed(b"\0\0\0\x01" + word(b"a") + word(bytes(200 * 1024 * 1024)))
    assert len(bomb) > CONTROL_LIMIT  # no frame could carry it; half of it could
    with pytest.raises(spdy.ProtocolError):
        HeaderReader().unpack(bomb[:CONTROL_LIMIT])


def test_a_stream_that_ends_or_wants_another_dictionary() -> None:
    deflate = zlib.compressobj(zdict=DICTIONARY)
    ended = deflate.compress(b"\0\0\0\0") + deflate.flush() + b"more"
    with pytest.raises(spdy.ProtocolError):
        HeaderReader().unpack(ended)
    other = zlib.compressobj(zdict=b"another dictionary")
    with pytest.raises(spdy.ProtocolError):
        HeaderReader().unpack(other.compress(b"\0\0\0\0") + other.flush(zlib.Z_SYNC_FLUSH))


@pytest.mark.parametrize(
    "headers",
    [(("Upper", "x"),), (("", "x"),), (("a", "b\0c"),), (("a\0", "b"),), (("a", "€"),), (("a", "x" * BLOCK_LIMIT),)],
)
def test_headers_we_must_not_send(headers: spdy.Headers) -> None:
    with pytest.raises(spdy.LocalError):
        HeaderWriter().pack(headers)


def test_frames_we_must_not_send() -> None:
    with pytest.raises(spdy.LocalError):
        FrameWriter().write(spdy.Data(stream_id=1, data=bytes(1 << 24)))
    with pytest.raises(spdy.LocalError):
        FrameWriter().write(spdy.Settings(values=tuple((1, number) for number in range(9000))))


NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20).map(str.lower)
VALUES = st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=50)


@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=8), min_size=1, max_size=8))
def test_any_headers_survive_in_a_row(blocks: list[dict[str, str]]) -> None:
    writer, reader = HeaderWriter(), HeaderReader()
    for block in blocks:
        headers = tuple(block.items())
        assert reader.unpack(writer.pack(headers)) == headers


@given(st.binary(max_size=2000), st.integers(min_value=1, max_value=50))
def test_garbage_gives_frames_or_an_error_and_nothing_else(data: bytes, step: int) -> None:
    for prefix in (b"", b"\x80\x03\0\x01", b"\x80\x03\0\x04\0\0\0\x20"):
        try:
            read(prefix + data, step=step)
        except spdy.ProtocolError:
            continue


@given(
    st.lists(st.tuples(st.integers(1, 1000), st.binary(max_size=300), st.booleans()), max_size=20),
    st.integers(min_value=1, max_value=400),
)
def test_any_cut_gives_the_same_data(frames: list[tuple[int, bytes, bool]], step: int) -> None:
    sent: list[spdy.Event] = [spdy.Data(stream_id=number, data=data, fin=fin) for number, data, fin in frames]
    writer = FrameWriter()
    data = b"".join(writer.write(frame) for frame in sent if isinstance(frame, spdy.Data))
    whole = read(data)
    assert joined(list(whole)) == joined(sent)
    assert joined(list(read(data, step=step))) == joined(sent)
