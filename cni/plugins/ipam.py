"""Delegation to an IPAM plugin, and what every interface plugin does with its answer."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import TYPE_CHECKING, Any

from cni import netns, wire
from cni.errors import CniFault, Malformed, PluginFault
from cni.types import Result, Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.link import Link, Links
    from cni.skel import Request
    from cni.types import IPConfig


def kind(request: Request) -> str:
    """Give the type of the IPAM plugin, "" when the network has no layer 3."""
    return wire.text(wire.mapping(request.config.get("ipam") or {}, "/ipam"), "type", "/ipam")


def add(request: Request) -> Result:
    """Ask the IPAM plugin for addresses; raise CniFault when it gives none, an empty Result without such a plugin."""
    plugin = kind(request)
    if not plugin:
        return Result()
    result = wire.read_result(_run(request, plugin, "ADD"), request.version)
    if not result.ips:
        raise PluginFault("gave no address", plugin=plugin, command="ADD")
    return result


def other(request: Request, command: str) -> None:
    """Run DEL, CHECK, GC or STATUS of the IPAM plugin, if there is one."""
    plugin = kind(request)
    if plugin:
        _run(request, plugin, command)


def with_gateways(result: Result, *, compute: bool, default_route: bool) -> Result:
    """Fill in gateways (`compute`: the first address of the subnet) and a default route for each family that has none."""
    ips = tuple(_with_gateway(ip) if compute else ip for ip in result.ips)
    routes = list(result.routes)
    if default_route:
        for ip in ips:
            everywhere = ipaddress.ip_network("0.0.0.0/0" if ip.address.version == 4 else "::/0")
            if all(route.dst != everywhere for route in routes):
                routes.append(Route(dst=everywhere, gw=ip.gateway))
    return dataclasses.replace(result, ips=ips, routes=tuple(routes))


def configure(links: Links, found: Link, result: Result) -> None:
    """Give the interface, already up, its addresses and routes; the caller is in its namespace."""
    enable_ipv6(found, result)
    for ip in result.ips:
        links.add_address(found.index, ip.address)
    for route in result.routes:
        links.add_route(found.index, with_gateway(route, result.ips))


def enable_ipv6(found: Link, result: Result) -> None:
    """Turn IPv6 on where it is off and an address needs it; the caller is in the interface's namespace."""
    if any(ip.address.version == 6 for ip in result.ips):
        for name in ("all", "default", found.name):
            if netns.read_setting(f"ipv6/conf/{name}/disable_ipv6") == "1":
                netns.write_setting(f"ipv6/conf/{name}/disable_ipv6", "0")


def with_gateway(route: Route, ips: Sequence[IPConfig]) -> Route:
    """Give a route without gateway that of the first address of its family."""
    if route.gw is not None:
        return route
    gateway = next((ip.gateway for ip in ips if ip.address.version == route.dst.version), None)
    return dataclasses.replace(route, gw=gateway)


def verify(links: Links, found: Link, result: Result, index: int) -> None:
    """Raise CniFault when an address of `result` at interface `index`, or a route, is not at the link any more."""
    present = set(links.addresses(found.index))
    for ip in result.ips:
        if ip.interface in {None, index} and ip.address not in present:
            raise CniFault(f"link {found.name} has lost its address {ip.address}")
    kernel = {(route.dst, route.gateway) for route in links.routes(found.index)}
    for route in result.routes:
        wanted = with_gateway(route, result.ips)
        if (wanted.dst, wanted.gw) not in kernel and route.table is None:
            raise CniFault(f"link {found.name} has lost its route to {route.dst}")


def _with_gateway(ip: IPConfig) -> IPConfig:
    if ip.gateway is not None:
        return ip
    network = ip.address.network
    if network.num_addresses < 4:
        raise Malformed(f"{network} has no address for a gateway", "/ipam")
    return dataclasses.replace(ip, gateway=network.network_address + 1)


def _run(request: Request, plugin: str, command: str) -> dict[str, Any] | None:
    return request.runner.run(dataclasses.replace(request.invocation, plugin=plugin, command=command))
