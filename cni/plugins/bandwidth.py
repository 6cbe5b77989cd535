"""bandwidth: limits how fast a container receives (ingress) and sends (egress).

The limits come with the attachment (capability "bandwidth") or stand in the configuration: rates in bits a second, bursts in
bits. It follows a plugin that made a veth pair.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni import link, netns, nft, wire
from cni.errors import CniFault, Malformed
from cni.link import Links
from cni.plugins import previous
from cni.shaping import Rate, Shaper
from cni.skel import Plugin, Request
from cni.types import Interface

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cni.link import Link
    from cni.types import Result

_UNSUPPORTED = ("shapedSubnets", "unshapedSubnets")
_MAX_BURST = 0xFFFFFFFF * 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The plugin's configuration, read; None: no limit."""

    ingress: Rate | None
    egress: Rate | None


def add(request: Request) -> Result:
    """Limit the container's link; when any step fails, undo those before it."""
    settings = read(request)
    result = previous.result(request)
    if settings.ingress is None and settings.egress is None:
        return result
    with contextlib.ExitStack() as undo, Links() as host, Shaper() as shaper:
        port = _port(request, host)
        if settings.ingress is not None:
            shaper.limit(port, settings.ingress)
        if settings.egress is not None:
            undo.callback(delete, request)
            ifb = _make_ifb(request, host, port)
            shaper.limit(ifb, settings.egress)
            shaper.redirect(port, ifb)
            made = Interface(name=ifb.name, mac=ifb.mac, mtu=ifb.mtu)
            result = dataclasses.replace(result, interfaces=(*result.interfaces, made))
        undo.pop_all()
    return result


def delete(request: Request) -> None:
    """Remove the intermediate link; everything else goes with the container's."""
    with Links() as host:
        found = host.find(ifb_name(request))
        if found is not None:
            host.delete(found)


def check(request: Request) -> None:
    """Raise CniFault when a limit is not as ADD left it."""
    settings = read(request)
    previous.result(request)
    with Links() as host, Shaper() as shaper:
        if settings.ingress is not None:
            _verify(shaper, _port(request, host), settings.ingress)
        if settings.egress is not None:
            ifb = host.find(ifb_name(request))
            if ifb is None or not ifb.is_up:
                raise CniFault(f"link {ifb_name(request)} of the host is {'down' if ifb else 'gone'}")
            _verify(shaper, ifb, settings.egress)


def gc(request: Request) -> None:
    """Remove the intermediate links of this network's attachments that are not valid."""
    stale = nft.stale(request.network, request.valid_attachments)
    with Links() as host:
        for one in host.all():
            if one.kind == "ifb" and one.alias and stale(one.alias):
                host.delete(one)


def status(request: Request) -> None:
    """Raise CniFault when the configuration is wrong."""
    read(request)


def read(request: Request) -> Settings:
    """Read the configuration; raise Malformed naming the pointer."""
    given = request.runtime_config.get("bandwidth")
    source, pointer = (request.config, "") if given is None else (wire.mapping(given, _RUNTIME), _RUNTIME)
    for name in _UNSUPPORTED:
        if source.get(name):
            raise Malformed("is not supported: all traffic of the container is limited", f"{pointer}/{name}")
    return Settings(ingress=_rate(source, "ingress", pointer), egress=_rate(source, "egress", pointer))


_RUNTIME = "/runtimeConfig/bandwidth"


def ifb_name(request: Request) -> str:
    """Give the name of the intermediate link, derived from the attachment: DEL finds it after a crash."""
    words = f"{request.network} {request.container_id} {request.ifname}"
    return f"bwp{hashlib.blake2b(words.encode(), digest_size=6).hexdigest()}"


def _rate(source: Mapping[str, Any], direction: str, pointer: str) -> Rate | None:
    rate = wire.number(source, f"{direction}Rate", pointer) or 0
    burst = wire.number(source, f"{direction}Burst", pointer) or 0
    if not rate and not burst:
        return None
    if rate < 8:
        raise Malformed("must be at least 8 bits a second when a burst is given", f"{pointer}/{direction}Rate")
    if not 8 <= burst <= _MAX_BURST:
        raise Malformed(f"must be between 8 and {_MAX_BURST} bits when a rate is given", f"{pointer}/{direction}Burst")
    return Rate(rate=rate // 8, burst=burst // 8)


def _port(request: Request, host: Links) -> Link:
    """Give the host's end of the container's pair."""
    with netns.Namespace(request.netns) as namespace, namespace.entered(), Links() as inside:
        container = inside.find(request.ifname)
    if container is None:
        raise CniFault(f"link {request.ifname} in {request.netns} is gone")
    found = host.at(container.peer) if container.kind == "veth" and container.peer else None
    if found is None:
        raise CniFault(
            f"link {request.ifname} in {request.netns} is no veth with an end on the host: it cannot be limited there"
        )
    return found


def _make_ifb(request: Request, host: Links, port: Link) -> Link:
    name = ifb_name(request)
    left = host.find(name)
    if left is not None:  # by an ADD that was killed
        host.delete(left)
    host.add_ifb(name, mtu=port.mtu)
    made = host.find(name)
    if made is None:
        raise CniFault(f"link {name} vanished while it was set up: is another program removing links?")
    host.set_alias(made, nft.owner(request.network, request.container_id, request.ifname))
    host.set_flags(made.index, link.UP, link.UP)
    return made


def _verify(shaper: Shaper, limited: Link, wanted: Rate) -> None:
    found = shaper.limit_of(limited)
    if found != wanted.rate:
        told = "is not limited" if found is None else f"is limited to {found * 8} bits a second"
        raise CniFault(f"link {limited.name} {told}, not to {wanted.rate * 8}")


PLUGIN = Plugin(name="bandwidth", add=add, delete=delete, check=check, gc=gc, status=status)
