"""ptp: a veth pair between the container and the host, routed, no bridge.

The host's end has the gateway's address alone, and a route to each of the container's; the container reaches its gateway
directly and everything else, its own subnet too, through it. So containers share no link and see none of each other's frames.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni import link, netns, nft, wire
from cni.errors import CniFault, Malformed
from cni.link import End, Link, Links
from cni.plugins import ipam, masquerade, veth
from cni.skel import Plugin, Request
from cni.types import Interface, IPConfig, Result, Route

if TYPE_CHECKING:
    from cni.types import IP, IPNetwork

_MAX_MTU = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The plugin's configuration, read."""

    masquerade: bool
    mtu: int


def add(request: Request) -> Result:
    """Attach the container; when any step fails, undo those before it."""
    settings = read(request)
    with contextlib.ExitStack() as undo:
        undo.callback(ipam.other, request, "DEL")
        result = ipam.with_gateways(ipam.add(request), compute=True, default_route=False)
        undo.callback(veth.unplug, request)
        interfaces = _connect(request, settings, result)
        if settings.masquerade:
            undo.callback(masquerade.delete, request)
            masquerade.add(request, result.ips)
        undo.pop_all()
    dns = wire.read_dns(wire.mapping(request.config.get("dns") or {}, "/dns"))
    return dataclasses.replace(
        result,
        interfaces=interfaces,
        ips=tuple(dataclasses.replace(ip, interface=1) for ip in result.ips),
        dns=dns if request.config.get("dns") else result.dns,
    )


def delete(request: Request) -> None:
    """Detach the container and free its addresses; nothing there is no error."""
    settings = read(request)
    with contextlib.ExitStack() as steps:
        steps.callback(ipam.other, request, "DEL")
        steps.callback(veth.unplug, request)
        if settings.masquerade:
            steps.callback(masquerade.delete, request)


def check(request: Request) -> None:
    """Raise CniFault naming the first thing that is not as ADD left it."""
    settings = read(request)
    result = request.prev_result
    if result is None:
        raise Malformed("is needed for CHECK", "/prevResult")
    ipam.other(request, "CHECK")
    with Links() as host:
        found = host.find(veth.host_name(request))
        if found is None or not found.is_up:
            raise CniFault(f"link {veth.host_name(request)} of the host is {'down' if found else 'gone'}")
        routed = {route.dst for route in host.routes(found.index)}
        for ip in result.ips:
            if _single(ip.address.ip) not in routed:
                raise CniFault(f"the host's route to {ip.address.ip} is gone")
    veth.check_inside(request, result)
    if settings.masquerade:
        masquerade.check(request, result.ips)


def gc(request: Request) -> None:
    """Remove the pairs, rules and addresses of this network that belong to no valid attachment."""
    veth.collect(request, masquerades=read(request).masquerade)


def status(request: Request) -> None:
    """Raise CniFault when ADD could not work."""
    if read(request).masquerade:
        nft.available()
    ipam.other(request, "STATUS")


def read(request: Request) -> Settings:
    """Read the configuration; raise Malformed naming the pointer."""
    mtu = wire.number(request.config, "mtu") or 0
    if not 0 <= mtu <= _MAX_MTU:
        raise Malformed(f"must be between 0 and {_MAX_MTU}", "/mtu")
    if not ipam.kind(request):
        raise Malformed("is needed: a routed link without addresses leads nowhere", "/ipam/type")
    return Settings(masquerade=wire.flag(request.config, "ipMasq"), mtu=mtu)


def _connect(request: Request, settings: Settings, result: Result) -> tuple[Interface, ...]:
    here = End(name=veth.host_name(request), up=True)
    with Links() as host, netns.Namespace(request.netns) as namespace, namespace.entered(), Links() as inside:
        there = End(name=request.ifname, mac=link.mac_for(result.ips[0].address.ip), netns=namespace.fd)
        port, container = veth.plug(request, host, inside, here, there, settings.mtu)
        host.set_alias(port, nft.owner(request.network, request.container_id, request.ifname))
        _address_host(host, port, result)
        _configure(inside, container, result)
    for family, name in ((4, "ipv4/ip_forward"), (6, "ipv6/conf/all/forwarding")):
        if any(ip.address.version == family for ip in result.ips):
            netns.write_setting(name, "1")
    return (
        Interface(name=port.name, mac=port.mac, mtu=port.mtu),
        Interface(name=container.name, mac=container.mac, mtu=container.mtu, sandbox=request.netns),
    )


def _address_host(host: Links, port: Link, result: Result) -> None:
    for ip in result.ips:
        if ip.gateway is not None:
            host.add_address(port.index, ipaddress.ip_interface(ip.gateway))
        host.add_route(port.index, Route(dst=_single(ip.address.ip)))


def _configure(inside: Links, container: Link, result: Result) -> None:
    """Give the container its addresses without their networks, and the gateway as the only neighbour."""
    ipam.enable_ipv6(container, result)
    for ip in result.ips:
        inside.add_address(container.index, ip.address, alone=True)
        for route in _routes(ip):
            inside.add_route(container.index, route)
    for route in result.routes:
        inside.add_route(container.index, ipam.with_gateway(route, result.ips))


def _routes(ip: IPConfig) -> tuple[Route, ...]:
    if ip.gateway is None:
        return ()
    return Route(dst=_single(ip.gateway)), Route(dst=ip.address.network, gw=ip.gateway)


def _single(address: IP) -> IPNetwork:
    return ipaddress.ip_network(address)


PLUGIN = Plugin(name="ptp", add=add, delete=delete, check=check, gc=gc, status=status)
