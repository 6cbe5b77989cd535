"""Links, addresses and routes of one network namespace, over rtnetlink(7).

The messages are encoded here (see netlink) and not by pyroute2, which is well kept and does all of this: every ADD and DEL
runs in a fork of a process that would have to hold it, for 105 to 125 ms of import and 20 MB, and a dozen messages a pod are
what it would be there for. What such code gets wrong it gets wrong in both directions, so that pyroute2 is the independent
reader of the system tests: it decodes a pod's links, addresses and routes, and both must say the same.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import select
import socket
import struct
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cni.netlink import CREATE, EXCLUSIVE, REPLACE, NetlinkSocket, Routing, attribute, attributes, nested, number, text

if TYPE_CHECKING:
    from cni.types import IP, IPInterface, IPNetwork, Route

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _GETROUTE = 24, 26
_IFLA_ADDRESS, _IFLA_NAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_TXQLEN: Final = 13
_IFLA_NETNS_FD, _IFLA_ALIAS, _IFLA_LINK = 28, 20, 5
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_PEER: Final = 1
_PORT_HAIRPIN, _PORT_ISOLATED = 4, 33  # IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD: Final = 0x02
_IFA_F_NOPREFIXROUTE: Final = 0x200
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_METRICS, _RTA_TABLE = 1, 4, 5, 6, 8, 15
_RTAX_MTU, _RTAX_ADVMSS = 2, 8
_TABLE_MAIN, _PROTOCOL_BOOT, _SCOPE_UNIVERSE, _SCOPE_LINK, _UNICAST = 254, 3, 0, 253, 1
_GROUP_LINK: Final = 1
UP: Final = 0x1
PROMISC: Final = 0x100
ALLMULTI: Final = 0x200
LOOPBACK_INDEX: Final = 1  # of `lo` in every namespace (linux/net.h)

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link as the kernel describes it.

    `master` is an index (0: none), `peer` that of a veth's other end, `queue` how many packets may wait to be sent.
    """

    index: int
    name: str
    mac: str
    mtu: int
    flags: int
    master: int
    kind: str
    peer: int
    alias: str
    queue: int

    @property
    def is_up(self) -> bool:
        """Whether it is administratively up."""
        return bool(self.flags & UP)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One end of a veth pair to be made; `netns` is the descriptor of its namespace, None for the current one."""

    name: str
    mac: str = ""
    netns: int | None = None
    master: int = 0
    up: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRoute:
    """A unicast route of the main table."""

    dst: IPNetwork
    gateway: IP | None
    index: int
    priority: int


class Links(Routing):
    """The links of the namespace in which this was made."""

    def find(self, name: str) -> Link | None:
        """Give the link called `name`, None when there is none."""
        return self._find(_IFINFO.pack(0, 0, 0, 0, 0) + text(_IFLA_NAME, name), f"link {name}")

    def at(self, index: int) -> Link | None:
        """Give the link with `index`, None when there is none."""
        return self._find(_IFINFO.pack(0, 0, index, 0, 0), f"link {index}")

    def all(self) -> list[Link]:
        """List the links."""
        return [_link(message.body) for message in self._socket.dump(_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0), what="links")]

    def add_bridge(self, name: str, *, mac: str, mtu: int = 0) -> None:
        """Make a bridge, still down; raise FileExistsError when the name is taken."""
        self._add("bridge", End(name=name, mac=mac), mtu)

    def add_ifb(self, name: str, *, mtu: int = 0) -> None:
        """Make an intermediate link, still down: it sends on what it is sent. Raises FileExistsError when the name is taken."""
        self._add("ifb", End(name=name), mtu)

    def _add(self, kind: str, end: End, mtu: int) -> None:
        body = _end(end, mtu) + nested(_IFLA_LINKINFO, text(_INFO_KIND, kind))
        self._socket.request(_NEWLINK, body, flags=CREATE | EXCLUSIVE, what=f"making {kind} {end.name}")

    def add_veth(self, here: End, there: End, *, mtu: int = 0) -> None:
        """Make a veth pair in one step, `there` directly in its namespace; raise FileExistsError when a name is taken."""
        peer = nested(_INFO_DATA, attribute(_VETH_PEER, _end(there, mtu)))
        body = _end(here, mtu) + nested(_IFLA_LINKINFO, text(_INFO_KIND, "veth"), peer)
        self._socket.request(_NEWLINK, body, flags=CREATE | EXCLUSIVE, what=f"making veth {here.name}, {there.name}")

    def set_flags(self, index: int, flags: int, mask: int) -> None:
        """Set the flags in `mask` (UP, PROMISC) of the link with `index` to `flags`."""
        self._socket.request(_NEWLINK, _IFINFO.pack(0, 0, index, flags, mask), what=f"setting flags of link {index}")

    def set_mac(self, link: Link, mac: str) -> None:
        """Set the hardware address, written with colons."""
        body = _IFINFO.pack(0, 0, link.index, 0, 0) + attribute(_IFLA_ADDRESS, mac_bytes(mac))
        self._socket.request(_NEWLINK, body, what=f"setting hardware address {mac} of {link.name}")

    def set_mtu(self, link: Link, mtu: int) -> None:
        """Set the largest packet, in bytes."""
        body = _IFINFO.pack(0, 0, link.index, 0, 0) + number(_IFLA_MTU, mtu)
        self._socket.request(_NEWLINK, body, what=f"setting mtu {mtu} of {link.name}")

    def set_queue(self, link: Link, length: int) -> None:
        """Set how many packets may wait to be sent."""
        body = _IFINFO.pack(0, 0, link.index, 0, 0) + number(_IFLA_TXQLEN, length)
        self._socket.request(_NEWLINK, body, what=f"setting the queue of {link.name} to {length}")

    def set_alias(self, link: Link, alias: str) -> None:
        """Set the alias of a link."""
        body = _IFINFO.pack(0, 0, link.index, 0, 0) + text(_IFLA_ALIAS, alias)
        self._socket.request(_NEWLINK, body, what=f"setting alias of {link.name}")

    def set_port(self, link: Link, *, hairpin: bool, isolated: bool, alias: str) -> None:
        """Set how a bridge treats its port, and its alias.

        `hairpin` sends frames back where they came from; between two that are `isolated` it forwards nothing.
        """
        data = attribute(_PORT_HAIRPIN, bytes([hairpin]))
        if isolated:
            data += attribute(_PORT_ISOLATED, b"\1")
        info = nested(_IFLA_LINKINFO, text(_INFO_SLAVE_KIND, "bridge"), nested(_INFO_SLAVE_DATA, data))
        body = _IFINFO.pack(0, 0, link.index, 0, 0) + text(_IFLA_ALIAS, alias) + info
        self._socket.request(_NEWLINK, body, what=f"setting up bridge port {link.name}")

    def delete(self, link: Link) -> None:
        """Remove a link (of a veth pair: both ends) and return when nobody sees it any more; gone already is no error.

        The kernel acknowledges only after a grace period of some twenty milliseconds that nobody has to wait for. So the
        request is made by a thread, and its end is whichever comes first: the event that the link is gone, or the answer.
        """
        with NetlinkSocket(groups=_GROUP_LINK) as events:
            done, answered = os.pipe2(os.O_CLOEXEC)
            outcome: list[OSError] = []
            try:
                threading.Thread(target=_delete, args=(NetlinkSocket(), link, answered, outcome), daemon=True).start()
                _wait_gone(events, done, link.index)
            finally:
                os.close(done)
        if outcome and outcome[0].errno != errno.ENODEV:
            raise outcome[0]

    def addresses(self, index: int) -> list[IPInterface]:
        """List the addresses of a link, without those the kernel makes itself (link scope)."""
        found = []
        for message in self._socket.dump(_GETADDR, _IFADDR.pack(0, 0, 0, 0, index), what=f"addresses of link {index}"):
            _family, prefix, _flags, scope, owner = _IFADDR.unpack_from(message.body)
            if owner == index and scope != _SCOPE_LINK:
                parts = attributes(message.body, _IFADDR.size)
                found.append(ipaddress.ip_interface((parts.get(_IFA_LOCAL) or parts[_IFA_ADDRESS], prefix)))
        return found

    def add_address(self, index: int, address: IPInterface, *, alone: bool = False) -> None:
        """Give a link an address, usable at once (no duplicate address detection); there already is no error.

        `alone`: without a route to its network.
        """
        flags = (_IFA_F_NODAD if address.version == 6 else 0) | (_IFA_F_NOPREFIXROUTE if alone else 0)
        body = _address(index, address) + number(_IFA_FLAGS, flags)
        if address.version == 4 and address.network.prefixlen < 31:
            body += attribute(_IFA_BROADCAST, address.network.broadcast_address.packed)
        self._socket.request(_NEWADDR, body, flags=CREATE | REPLACE, what=f"adding address {address} to link {index}")

    def remove_address(self, index: int, address: IPInterface) -> None:
        """Take an address from a link."""
        self._socket.request(_DELADDR, _address(index, address), what=f"removing address {address} from link {index}")

    def routes(self, index: int) -> list[KernelRoute]:
        """List the unicast routes of the main table through a link."""
        found = []
        for message in self._socket.dump(_GETROUTE, _RTMSG.pack(0, 0, 0, 0, 0, 0, 0, 0, 0), what="routes"):
            route = _route(message.body)
            if route is not None and route.index == index:
                found.append(route)
        return found

    def route_to(self, address: IP) -> int:
        """Give the index of the link through which the kernel would send to `address`."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        head = _RTMSG.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
        body = self._socket.get(_GETROUTE, head + attribute(_RTA_DST, address.packed), what=f"route to {address}")
        return int.from_bytes(attributes(body, _RTMSG.size)[_RTA_OIF], sys.byteorder)

    def add_route(self, index: int, route: Route) -> None:
        """Add a route through a link; the very same one there already is no error."""
        family = socket.AF_INET if route.dst.version == 4 else socket.AF_INET6
        table = route.table or _TABLE_MAIN
        scope = route.scope if route.scope is not None else _SCOPE_UNIVERSE if route.gw is not None else _SCOPE_LINK
        head = _RTMSG.pack(family, route.dst.prefixlen, 0, 0, min(table, 255) % 255, _PROTOCOL_BOOT, scope, _UNICAST, 0)
        body = (
            head + attribute(_RTA_DST, route.dst.network_address.packed) + number(_RTA_OIF, index) + number(_RTA_TABLE, table)
        )
        if route.gw is not None:
            body += attribute(_RTA_GATEWAY, route.gw.packed)
        if route.priority is not None:
            body += number(_RTA_PRIORITY, route.priority)
        metrics = [number(kind, value) for kind, value in ((_RTAX_MTU, route.mtu), (_RTAX_ADVMSS, route.advmss)) if value]
        if metrics:
            body += nested(_RTA_METRICS, *metrics)
        what = f"adding route to {route.dst}" + (f" via {route.gw}" if route.gw else "")
        self._socket.request(_NEWROUTE, body, flags=CREATE | REPLACE, what=what)

    def _find(self, body: bytes, what: str) -> Link | None:
        try:
            return _link(self._socket.get(_GETLINK, body, what=what))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise


def mac_bytes(mac: str) -> bytes:
    """Give the six bytes of a hardware address written with colons; raise ValueError for another form."""
    parts = mac.split(":")
    if len(parts) != 6 or not all(len(part) == 2 for part in parts):
        raise ValueError(f"{mac!r} is not a hardware address")
    return bytes(int(part, 16) for part in parts)


def mac_for(address: IP) -> str:
    """Derive a hardware address from the address it will carry.

    An address that is given out again then has the same hardware address again, and what neighbours remember of it stays
    right: no announcement has to be sent, or waited for. The first byte says: locally administered (IEEE 802).
    """
    tail = address.packed[-4:]
    return ":".join(f"{byte:02x}" for byte in (0x0A, 0x58 if address.version == 4 else 0x59, *tail))


def _end(end: End, mtu: int) -> bytes:
    flags = UP if end.up else 0
    body = _IFINFO.pack(0, 0, 0, flags, flags) + text(_IFLA_NAME, end.name)
    if mtu:
        body += number(_IFLA_MTU, mtu)
    if end.mac:
        body += attribute(_IFLA_ADDRESS, mac_bytes(end.mac))
    if end.netns is not None:
        body += number(_IFLA_NETNS_FD, end.netns)
    if end.master:
        body += number(_IFLA_MASTER, end.master)
    return body


def _link(body: bytes) -> Link:
    _family, _type, index, flags, _change = _IFINFO.unpack_from(body)
    parts = attributes(body, _IFINFO.size)
    info = attributes(parts.get(_IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=_text(parts.get(_IFLA_NAME, b"")),
        mac=parts.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(parts.get(_IFLA_MTU, b"")),
        flags=flags,
        master=_number(parts.get(_IFLA_MASTER, b"")),
        kind=_text(info.get(_INFO_KIND, b"")),
        peer=_number(parts.get(_IFLA_LINK, b"")),
        alias=_text(parts.get(_IFLA_ALIAS, b"")),
        queue=_number(parts.get(_IFLA_TXQLEN, b"")),
    )


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def _number(data: bytes) -> int:
    return int.from_bytes(data[:4], sys.byteorder)


def _address(index: int, address: IPInterface) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    head = _IFADDR.pack(family, address.network.prefixlen, 0, _SCOPE_UNIVERSE, index)
    return head + attribute(_IFA_LOCAL, address.packed) + attribute(_IFA_ADDRESS, address.packed)


def _route(body: bytes) -> KernelRoute | None:
    family, prefix, _source, _tos, _table, _protocol, _scope, kind, _flags = _RTMSG.unpack_from(body)
    parts = attributes(body, _RTMSG.size)
    if (
        kind != _UNICAST
        or _number(parts.get(_RTA_TABLE, b"")) != _TABLE_MAIN
        or family not in {socket.AF_INET, socket.AF_INET6}
    ):
        return None
    anywhere = bytes(4 if family == socket.AF_INET else 16)
    return KernelRoute(
        dst=ipaddress.ip_network((parts.get(_RTA_DST, anywhere), prefix)),
        gateway=ipaddress.ip_address(parts[_RTA_GATEWAY]) if _RTA_GATEWAY in parts else None,
        index=_number(parts.get(_RTA_OIF, b"")),
        priority=_number(parts.get(_RTA_PRIORITY, b"")),
    )


def _delete(requests: NetlinkSocket, link: Link, answered: int, outcome: list[OSError]) -> None:
    try:
        with requests:
            requests.request(_DELLINK, _IFINFO.pack(0, 0, link.index, 0, 0), what=f"removing link {link.name}")
    except OSError as error:
        outcome.append(error)
    finally:
        os.close(answered)


def _wait_gone(events: NetlinkSocket, done: int, index: int) -> None:
    poll = select.poll()
    poll.register(events, select.POLLIN)
    poll.register(done, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _event in poll.poll()}
        if done in ready:
            return
        try:
            messages = events.receive()
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # events were lost: then the answer itself has to be awaited
                raise
            poll.unregister(events)
            continue
        if any(kind == _DELLINK and _gone(body, index) for kind, body in messages):
            return


def _gone(body: bytes, index: int) -> bool:
    family, _type, one, _flags, _change = _IFINFO.unpack_from(body)
    return bool(family == 0 and one == index)
