"""Connection tracking: forget flows, through ctnetlink. Source: linux/netfilter/nfnetlink_conntrack.h."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final

from cni.netlink import attributes, nested, netfilter

if TYPE_CHECKING:
    from collections.abc import Iterator

_GET: Final = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_DELETE: Final = 1 << 8 | 2
_TUPLE_ORIG, _TUPLE_PROTO, _PROTO_NUM, _PROTO_DST_PORT = 1, 2, 1, 3
_GENMSG = struct.Struct("=BBH")


def forget_udp(ports: set[int]) -> None:
    """Delete the flows whose original destination was one of these UDP ports; without connection tracking do nothing."""
    netlink = netfilter()
    for family in (socket.AF_INET, socket.AF_INET6):
        head = _GENMSG.pack(family, 0, 0)
        try:
            found = netlink.dump(_GET, head, what="tracked flows")
        except OSError:  # the module is not there: then there are no flows either
            return
        for flow in _flows((message.body for message in found), ports):
            try:
                netlink.request(_DELETE, head + nested(_TUPLE_ORIG, flow), what="forgetting a tracked flow")
            except FileNotFoundError:
                continue  # it ended by itself


def _flows(bodies: Iterator[bytes], ports: set[int]) -> Iterator[bytes]:
    for body in bodies:
        flow = attributes(body, _GENMSG.size).get(_TUPLE_ORIG, b"")
        protocol = attributes(attributes(flow).get(_TUPLE_PROTO, b""))
        if protocol.get(_PROTO_NUM) != bytes([socket.IPPROTO_UDP]):
            continue
        if int.from_bytes(protocol.get(_PROTO_DST_PORT, b""), "big") in ports:
            yield flow
