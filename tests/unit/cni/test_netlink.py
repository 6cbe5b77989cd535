from __future__ import annotations

import errno
import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni import link, netlink, nft
from cni.netlink import NetlinkSocket


class Peer:
    """Stands for the kernel: what is sent is kept, what is received was prepared."""

    def __init__(self, *answers: bytes) -> None:
        self.sent: list[bytes] = []
        self.answers = list(answers)

    def send(self, data: bytes) -> int:
        self.sent.append(data)
        return len(data)

    def recv(self, _size: int) -> bytes:
        return self.answers.pop(0)

    def close(self) -> None: ...


def _socket(*answers: bytes) -> tuple[NetlinkSocket, Peer]:
    made = NetlinkSocket.__new__(NetlinkSocket)
    peer = Peer(*answers)
    made._socket = peer  # type: ignore[assignment] # the seam of this test
    made._sequence = 0
    return made, peer


def _message(kind: int, body: bytes, *, sequence: int = 1, flags: int = 0) -> bytes:
    data = struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body
    return data + bytes(-len(data) % 4)


def _answer(code: int, *, sequence: int = 1, said: str = "") -> bytes:
    body = struct.pack("=i", -code) + bytes(16)
    if not said:
        return _message(2, body, sequence=sequence, flags=0x100)
    return _message(2, body + netlink.text(1, said), sequence=sequence, flags=0x300)


def test_attributes_are_padded_and_read_back() -> None:
    data = netlink.attribute(1, b"abcde") + netlink.number(2, 7) + netlink.nested(3, netlink.text(4, "x"))
    assert len(data) % 4 == 0
    read = netlink.attributes(data)
    assert read == {1: b"abcde", 2: struct.pack("=I", 7), 3: netlink.text(4, "x")}


@given(st.binary(max_size=64))
def test_any_bytes_can_be_read(data: bytes) -> None:
    assert sum(len(value) for value in netlink.attributes(data).values()) <= len(data)
    assert isinstance(list(nft._elements(bytes(4) + data)), list)


@given(st.binary(max_size=40))
def test_any_userdata_can_be_read(data: bytes) -> None:
    assert isinstance(nft._comment(data), str)


def test_request_waits_for_its_own_answer() -> None:
    made, peer = _socket(_answer(errno.EPERM, sequence=9) + _answer(0))
    made.request(16, b"body", what="x")
    assert struct.unpack_from("=IHHII", peer.sent[0]) == (20, 16, 0x5, 1, 0)


def test_refusal_has_the_kernels_reason() -> None:
    made, _peer = _socket(_answer(errno.EINVAL, said="Bridge is Full"))
    with pytest.raises(OSError, match="adding a port: invalid argument: bridge is full") as fault:
        made.request(16, b"", what="adding a port")
    assert fault.value.errno == errno.EINVAL


def test_dump_is_taken_again_when_interrupted() -> None:
    interrupted = _message(16, b"old1", flags=0x10) + _message(3, bytes(4))
    made, peer = _socket(interrupted, _message(16, b"new1", sequence=2), _message(3, bytes(4), sequence=2))
    assert [message.body for message in made.dump(18, b"", what="links")] == [b"new1"]
    assert len(peer.sent) == 2


def test_dump_that_never_settles() -> None:
    answers = [_message(16, b"x", flags=0x10, sequence=n) + _message(3, bytes(4), sequence=n) for n in range(1, 20)]
    made, _peer = _socket(*answers)
    with pytest.raises(OSError, match="changed too often"):
        made.dump(18, b"", what="links")


def test_transaction_is_one_batch() -> None:
    made, peer = _socket(_answer(0, sequence=2) + _answer(0, sequence=3))
    made.transaction(10, [(5, b"aa"), (6, b"bb")], flags=0, what="x")
    kinds = []
    offset = 0
    while offset < len(peer.sent[0]):
        length, kind, *_rest = struct.unpack_from("=IHHII", peer.sent[0], offset)
        kinds.append(kind)
        offset += (length + 3) & ~3
    assert (kinds, len(peer.sent)) == ([0x10, 5, 6, 0x11], 1)


def test_transaction_tells_the_first_refusal() -> None:
    made, _peer = _socket(_answer(0, sequence=2) + _answer(errno.ENOENT, sequence=3))
    with pytest.raises(FileNotFoundError):
        made.transaction(10, [(5, b"aa"), (6, b"bb")], flags=0, what="x")


def test_hardware_addresses() -> None:
    assert link.mac_bytes("0a:58:0A:01:02:03") == bytes.fromhex("0a580a010203")
    for text in ("", "0a:58:0a:01:02", "0a:58:0a:01:02:zz", "a:58:0a:01:02:03", "0a-58-0a-01-02-03"):
        with pytest.raises(ValueError, match=r"not a hardware address|invalid literal"):
            link.mac_bytes(text)


def test_hardware_address_follows_the_address() -> None:
    assert link.mac_for(ipaddress.ip_address("10.1.2.3")) == "0a:58:0a:01:02:03"
    assert link.mac_for(ipaddress.ip_address("fd00::102:304")) == "0a:59:01:02:03:04"
    first = link.mac_bytes(link.mac_for(ipaddress.ip_address("10.1.2.3")))[0]
    assert first & 0x3 == 0x2  # unicast, locally administered


def test_sockets_of_this_process_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    one = netlink.netfilter()
    assert netlink.netfilter() is one
    monkeypatch.setattr("os.getpid", lambda: 1)
    other = netlink.netfilter()
    assert other is not one
    for made in (one, other):
        made.close()
    netlink._netfilter.clear()
