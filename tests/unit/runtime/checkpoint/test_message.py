"""criu's messages: bytes as the Protocol Buffers encoding has them, and nothing else is believed."""

from __future__ import annotations

import pytest

from runtime.checkpoint import message
from runtime.errors import ProtocolFault


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        ([(1, 150)], "089601"),
        ([(2, "testing")], "120774657374696e67"),
        ([(3, True), (3, False)], "18011800"),
        ([(1, -1)], "08ffffffffffffffffff01"),
        ([(37, b"\x00")], "aa020100"),
        ([], ""),
    ],
)
def test_encoding(fields: message.Fields, data: str) -> None:
    assert message.encode(fields).hex() == data


def test_what_is_encoded_is_decoded() -> None:
    assert message.decode(message.encode([(1, 300), (2, "x" * 200), (68, b"")])) == {1: 300, 2: b"x" * 200, 68: b""}


def test_fixed_size_fields_are_passed_over() -> None:
    assert message.decode(b"\x09" + b"\1" * 8 + b"\x15" + b"\2" * 4 + b"\x18\x05") == {1: b"\1" * 8, 2: b"\2" * 4, 3: 5}


@pytest.mark.parametrize("data", [b"\x08", b"\x08\xff", b"\x12\x05ab", b"\x0b", b"\x09\1", b"\xff" * 11])
def test_a_damaged_message_is_a_fault(data: bytes) -> None:
    with pytest.raises(ProtocolFault):
        message.decode(data)


def test_a_notification_and_a_restore_are_read() -> None:
    notify = message.encode([(1, message.NOTIFY), (2, True), (5, message.encode([(1, "post-restore"), (2, 42)]))])
    answer = message.read_answer(notify)
    assert (answer.kind, answer.success, answer.script, answer.pid) == (message.NOTIFY, True, "post-restore", 42)
    done = message.read_answer(message.encode([(1, message.RESTORE), (2, True), (4, message.encode([(1, 7)]))]))
    assert (done.kind, done.pid) == (message.RESTORE, 7)
    failed = message.read_answer(message.encode([(1, message.DUMP), (2, False), (7, 17), (9, "no")]))
    assert (failed.success, failed.errno, failed.error) == (False, 17, "no")


def test_version_and_features_are_read() -> None:
    version = message.encode([(1, 4), (2, 2), (4, 1)])
    assert message.read_answer(message.encode([(1, message.VERSION), (2, True), (10, version)])).version == (4, 2, 1)
    features = message.encode([(2, True)])
    assert message.read_answer(message.encode([(1, 9), (2, True), (8, features)])).features == (False, True)
