"""Netlink messages and a small blocking socket for them.

The bundled plugins send a dozen messages a pod. Encoding them here costs microseconds and no memory worth naming; the
general library for netlink takes a tenth of a second and twenty megabytes to import, and ten times as long a message.

Source: netlink(7), rtnetlink(7).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NETLINK_ROUTE: Final = 0
NETLINK_NETFILTER: Final = 12

REQUEST: Final = 0x1
ACK: Final = 0x4
DUMP: Final = 0x300
REPLACE: Final = 0x100
EXCLUSIVE: Final = 0x200
CREATE: Final = 0x400

_BATCH_BEGIN: Final = 0x10  # NFNL_MSG_BATCH_BEGIN
_BATCH_END: Final = 0x11
_ERROR: Final = 2  # NLMSG_ERROR
_DONE: Final = 3
_DUMP_INTERRUPTED: Final = 0x10
_ACK_ATTRIBUTES: Final = 0x200  # NLM_F_ACK_TLVS
_ACK_MESSAGE: Final = 1  # NLMSGERR_ATTR_MSG
_ACK_CAPPED: Final = 0x100  # NLM_F_CAPPED
_SOL_NETLINK: Final = 270
_EXT_ACK: Final = 11
_CAP_ACK: Final = 10
_RECEIVE_BYTES: Final = 1 << 18
_NESTED: Final = 0x8000
_TYPE_MASK: Final = 0x3FFF
_DUMP_TRIES: Final = 8

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_INT = struct.Struct("=i")
_PADS = (b"", b"\0\0\0", b"\0\0", b"\0")


class Message(NamedTuple):
    """One received message: its type and what follows the netlink header."""

    kind: int
    body: bytes


def attribute(kind: int, payload: bytes) -> bytes:
    """Encode one attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + _PADS[len(payload) & 3]


def number(kind: int, value: int) -> bytes:
    """Encode an attribute that is a 32-bit number."""
    return _ATTRIBUTE.pack(8, kind) + value.to_bytes(4, sys.byteorder)


def text(kind: int, value: str) -> bytes:
    """Encode an attribute that is a string with its final zero."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, *attributes: bytes) -> bytes:
    """Encode an attribute that holds others."""
    return attribute(kind | _NESTED, b"".join(attributes))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Decode the attributes from `offset` on; of repeated ones the last is kept."""
    return dict(attribute_list(data, offset))


def attribute_list(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Decode the attributes from `offset` on, in order; a truncated one ends the list."""
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            return
        yield kind & _TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


class NetlinkSocket:
    """A blocking netlink socket of the network namespace in which it was made; a context manager."""

    def __init__(self, protocol: int = NETLINK_ROUTE, *, groups: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            self._socket.bind((0, groups))
            self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        except OSError:
            self._socket.close()
            raise
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """Give the descriptor, for poll(2)."""
        return self._socket.fileno()

    def request(self, kind: int, body: bytes, *, flags: int = 0, what: str) -> None:
        """Send one message and wait for its acknowledgement; raise OSError about `what`, with the kernel's own reason."""
        self._send(kind, body, REQUEST | ACK | flags)
        for _message in self._replies(what):
            pass

    def get(self, kind: int, body: bytes, *, what: str) -> bytes:
        """Send a request that is answered by one message and give that message's body; raise OSError about `what`."""
        self._send(kind, body, REQUEST)
        for message in self._replies(what, single=True):
            return message.body
        raise OSError(errno.ENODATA, f"{what}: the kernel gave no answer")

    def dump(self, kind: int, body: bytes, *, what: str) -> list[Message]:
        """Send a dump request and give all its messages; a dump that a change interrupted is taken again."""
        for _attempt in range(_DUMP_TRIES):
            self._send(kind, body, REQUEST | DUMP)
            try:
                return list(self._replies(what))
            except InterruptedError:
                continue
        raise OSError(errno.EINTR, f"{what}: changed too often to be listed")

    def transaction(self, subsystem: int, messages: Sequence[tuple[int, bytes]], *, flags: int, what: str) -> None:
        """Send messages of a netfilter subsystem as one batch: all take effect, or the first refusal is raised as OSError."""
        batch = struct.pack(">BBH", 0, 0, subsystem)  # nfgenmsg: any family, version 0
        data = self._encode(_BATCH_BEGIN, batch, REQUEST)
        first = self._sequence + 1
        for kind, body in messages:
            data += self._encode(kind, body, REQUEST | ACK | flags)
        last = self._sequence
        self._socket.send(data + self._encode(_BATCH_END, batch, REQUEST))
        answered = first
        while answered <= last:
            for kind, seen, sequence, body in _split(self._socket.recv(_RECEIVE_BYTES)):
                if kind == _ERROR and first - 1 <= sequence <= last + 1:
                    _raise_error(body, seen, what)
                    answered += 1

    def receive(self) -> list[Message]:
        """Wait for one datagram (an event) and give its messages."""
        return [Message(kind, body) for kind, _flags, _sequence, body in _split(self._socket.recv(_RECEIVE_BYTES))]

    def _send(self, kind: int, body: bytes, flags: int) -> None:
        self._socket.send(self._encode(kind, body, flags))

    def _encode(self, kind: int, body: bytes, flags: int) -> bytes:
        self._sequence += 1
        return _HEADER.pack(16 + len(body), kind, flags, self._sequence, 0) + body + _PADS[len(body) & 3]

    def _replies(self, what: str, *, single: bool = False) -> Iterator[Message]:
        interrupted = False
        while True:
            for kind, flags, sequence, body in _split(self._socket.recv(_RECEIVE_BYTES)):
                if sequence != self._sequence:
                    continue
                interrupted |= bool(flags & _DUMP_INTERRUPTED)
                if kind == _ERROR:
                    _raise_error(body, flags, what)
                    return
                if kind == _DONE:
                    if interrupted:
                        raise InterruptedError
                    return
                yield Message(kind, body)
                if single:
                    return


def _split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, _port = _HEADER.unpack_from(data, offset)
        if length < 16:
            return
        yield kind, flags, sequence, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def _raise_error(body: bytes, flags: int, what: str) -> None:
    code = -_INT.unpack_from(body)[0]
    if code == 0:
        return
    reason = os.strerror(code).lower()
    if flags & _ACK_ATTRIBUTES:
        skipped = 20 if flags & _ACK_CAPPED else 4 + _HEADER.unpack_from(body, 4)[0]
        said = attributes(body, (skipped + 3) & ~3).get(_ACK_MESSAGE, b"").rstrip(b"\0").decode(errors="replace")
        reason = f"{reason}: {said.lower()}" if said else reason
    raise OSError(code, f"{what}: {reason}")


class Routing:
    """A view of the namespace in which it was made; a context manager that closes its socket."""

    def __init__(self) -> None:
        self._socket = NetlinkSocket()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_unused: object) -> None:
        self._socket.close()


_netfilter: dict[tuple[int, int], NetlinkSocket] = {}


def netfilter() -> NetlinkSocket:
    """Give this process's netfilter socket for the current network namespace.

    It is never closed before the process ends: closing one waits, some twenty milliseconds, until the kernel has freed what
    any process removed just before. The key keeps a forked process from sharing its parent's.
    """
    key = (os.getpid(), os.stat("/proc/thread-self/ns/net").st_ino)
    if key not in _netfilter:
        _netfilter[key] = NetlinkSocket(NETLINK_NETFILTER)
    return _netfilter[key]
