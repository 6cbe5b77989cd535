"""rtnetlink(7), as far as moving a network device takes it: links by name, their addresses, and their namespace."""

from __future__ import annotations

import os
import sys

from runtime.kernel.libc import u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
else:
    import _socket  # the socket module costs an import of four milliseconds

RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR = 16, 18, 20, 22
IFLA_IFNAME, IFLA_NET_NS_FD = 3, 28
IFF_UP = 0x1
IFA_F_PERMANENT = 0x80
RT_SCOPE_UNIVERSE = 0
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP, _NLM_F_CREATE_NEW = 0x1, 0x4, 0x300, 0x600
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_AF_NETLINK = 16
_HEADER = 16
_CHUNK = 64 * 1024


class Address:
    """An address of a link: `head` is family, prefix length, flags and scope, `attributes` what the kernel said beside it."""

    __slots__ = ("attributes", "head")

    def __init__(self, head: bytes, attributes: bytes) -> None:
        self.head = head
        self.attributes = attributes


def _u16(value: int) -> bytes:
    return value.to_bytes(2, sys.byteorder)


def _number(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


def attribute(kind: int, value: bytes) -> bytes:
    """Pack one attribute, padded to four bytes."""
    return _u16(len(value) + 4) + _u16(kind) + value + b"\0" * (-len(value) % 4)


class Route:
    """A socket that talks to the network namespace it was made in, wherever the process is afterwards."""

    def __init__(self) -> None:
        self._socket = _socket.socket(_AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, 0)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _ask(self, kind: int, flags: int, payload: bytes) -> list[bytes]:
        """Send a request and give the answers' payloads; raise OSError for what the kernel refuses."""
        header = u32(_HEADER + len(payload)) + _u16(kind) + _u16(flags | _NLM_F_REQUEST | _NLM_F_ACK) + u32(1, 0)
        self._socket.send(header + payload)
        answers: list[bytes] = []
        while True:
            data = self._socket.recv(_CHUNK)
            while len(data) >= _HEADER:
                size, answer = _number(data[:4]), _number(data[4:6])
                body, data = data[_HEADER:size], data[size + -size % 4 :]
                if answer == _NLMSG_ERROR and _number(body[:4]):
                    number = (1 << 32) - _number(body[:4])
                    raise OSError(number, os.strerror(number))
                if answer in (_NLMSG_ERROR, _NLMSG_DONE):
                    return answers
                answers.append(body)

    def link(self, name: str) -> int:
        """Give the index of the link with this name; raise OSError (ENODEV)."""
        request = b"\0" * 16 + attribute(IFLA_IFNAME, os.fsencode(name) + b"\0")
        return _number(self._ask(RTM_GETLINK, 0, request)[0][4:8])

    def addresses(self, index: int) -> list[Address]:
        """Give the permanent addresses of global scope of a link."""
        found = []
        for body in self._ask(RTM_GETADDR, _NLM_F_DUMP, b"\0" * 8):
            permanent = body[2] & IFA_F_PERMANENT and body[3] == RT_SCOPE_UNIVERSE
            if permanent and _number(body[4:8]) == index:
                found.append(Address(body[:4], _kept(body[8:])))
        return found

    def add_address(self, index: int, address: Address) -> None:
        """Give a link an address."""
        self._ask(RTM_NEWADDR, _NLM_F_CREATE_NEW, address.head + u32(index) + address.attributes)

    def set_up(self, index: int, *, up: bool) -> None:
        """Set a link up or down."""
        self._ask(RTM_NEWLINK, 0, b"\0" * 4 + u32(index, IFF_UP if up else 0, IFF_UP))

    def move(self, index: int, namespace_fd: int, name: str) -> None:
        """Move a link into another network namespace, under `name`; raise OSError (EEXIST when the name is taken there)."""
        attributes = attribute(IFLA_NET_NS_FD, u32(namespace_fd)) + attribute(IFLA_IFNAME, os.fsencode(name) + b"\0")
        self._ask(RTM_NEWLINK, 0, b"\0" * 4 + u32(index, 0, 0) + attributes)


_KEPT_ATTRIBUTES = (1, 2, 4, 7, 8, 9)  # IFA_ADDRESS, LOCAL, BROADCAST, MULTICAST, FLAGS, RT_PRIORITY: no label, no cache info


def _kept(attributes: bytes) -> bytes:
    kept = b""
    while len(attributes) >= 4:
        size = _number(attributes[:2])
        if _number(attributes[2:4]) in _KEPT_ATTRIBUTES:
            kept += attributes[: size + -size % 4]
        attributes = attributes[max(size + -size % 4, 4) :]
    return kept
