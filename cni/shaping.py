"""Queueing disciplines and filters: how fast a link may send. Over rtnetlink(7), as tc(8) does it.

A link is slowed down only where it sends. What a container receives is slowed where the host's end of its pair sends to it;
what it sends is taken from the host's end before anybody sees it (an `ingress` discipline), sent through an intermediate link
(ifb) that is slowed, and goes on from there as if nothing had been.

Source: tc-tbf(8), tc-u32(8), tc-mirred(8), linux/pkt_sched.h, linux/pkt_cls.h.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cni.netlink import CREATE, EXCLUSIVE, Routing, attribute, attributes, nested, number, text

if TYPE_CHECKING:
    from cni.link import Link

_NEWQDISC, _GETQDISC, _NEWTFILTER = 36, 38, 44
_TCA_KIND, _TCA_OPTIONS = 1, 2
_ROOT: Final = 0xFFFFFFFF  # TC_H_ROOT
_INGRESS: Final = 0xFFFFFFF1  # TC_H_INGRESS
_INGRESS_HANDLE: Final = 0xFFFF0000
_HANDLE: Final = 0x00010000
_TBF_PARMS, _TBF_RATE64, _TBF_BURST = 1, 4, 6
_U32_SEL, _U32_ACT = 5, 7
_ACT_KIND, _ACT_OPTIONS, _MIRRED_PARMS = 1, 2, 2
_TERMINAL: Final = 1  # TC_U32_TERMINAL
_STOLEN, _REDIRECT = 4, 1  # TC_ACT_STOLEN, TCA_EGRESS_REDIR
_EVERY_PROTOCOL: Final = 0x0300  # ETH_P_ALL in network order
_ETHERNET: Final = 1  # TC_LINKLAYER_ETHERNET: the kernel computes times itself and wants no table
_MOST: Final = 0xFFFFFFFF
_LATENCY: Final = 0.025
"""Seconds a packet may wait; what would wait longer is dropped."""

_TCMSG = struct.Struct("=B3xiIII")
_RATE = struct.Struct("=BBHhHI")
_QUEUE = struct.Struct("=III")
_SELECTOR = struct.Struct("=BBBxHHhhI")
_KEY = struct.Struct("=IIii")
_MIRRED = struct.Struct("=IIiiiiI")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A limit: bytes a second in the long run, and bytes that may pass at once."""

    rate: int
    burst: int


class Shaper(Routing):
    """Disciplines of the links of the namespace in which this was made."""

    def limit(self, link: Link, rate: Rate) -> None:
        """Let `link` send no faster than `rate`; raise FileExistsError when it has a discipline already."""
        waiting = min(int(rate.rate * _LATENCY) + rate.burst, _MOST)
        head = _RATE.pack(0, _ETHERNET, 0, 0, 0, min(rate.rate, _MOST))
        parameters = head + bytes(_RATE.size) + _QUEUE.pack(waiting, 0, 0)
        options = attribute(_TBF_PARMS, parameters) + number(_TBF_BURST, rate.burst)
        if rate.rate > _MOST:
            options += attribute(_TBF_RATE64, rate.rate.to_bytes(8, sys.byteorder))
        body = _TCMSG.pack(0, link.index, _HANDLE, _ROOT, 0) + text(_TCA_KIND, "tbf") + attribute(_TCA_OPTIONS, options)
        self._socket.request(_NEWQDISC, body, flags=CREATE | EXCLUSIVE, what=f"limiting what {link.name} sends")

    def redirect(self, source: Link, target: Link) -> None:
        """Send everything that arrives on `source` out of `target` instead."""
        body = _TCMSG.pack(0, source.index, _INGRESS_HANDLE, _INGRESS, 0) + text(_TCA_KIND, "ingress")
        self._socket.request(_NEWQDISC, body, flags=CREATE | EXCLUSIVE, what=f"taking what arrives on {source.name}")
        mirred = attribute(_MIRRED_PARMS, _MIRRED.pack(0, 0, _STOLEN, 0, 0, _REDIRECT, target.index))
        action = nested(1, text(_ACT_KIND, "mirred"), nested(_ACT_OPTIONS, mirred))
        everything = _SELECTOR.pack(_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + _KEY.pack(0, 0, 0, 0)
        options = nested(_TCA_OPTIONS, attribute(_U32_SEL, everything), nested(_U32_ACT, action))
        head = _TCMSG.pack(0, source.index, 0, _INGRESS_HANDLE, _EVERY_PROTOCOL)
        what = f"sending what arrives on {source.name} through {target.name}"
        self._socket.request(_NEWTFILTER, head + text(_TCA_KIND, "u32") + options, flags=CREATE | EXCLUSIVE, what=what)

    def limit_of(self, link: Link) -> int | None:
        """Give the bytes a second that `link` may send, None when nothing limits it."""
        for message in self._socket.dump(_GETQDISC, _TCMSG.pack(0, link.index, 0, 0, 0), what=f"disciplines of {link.name}"):
            _family, index, _handle, parent, _info = _TCMSG.unpack_from(message.body)
            parts = attributes(message.body, _TCMSG.size)
            if index != link.index or parent != _ROOT or parts.get(_TCA_KIND) != b"tbf\0":
                continue
            options = attributes(parts[_TCA_OPTIONS])
            if _TBF_RATE64 in options:
                return int.from_bytes(options[_TBF_RATE64], sys.byteorder)
            return int(_RATE.unpack_from(options[_TBF_PARMS])[5])
        return None
