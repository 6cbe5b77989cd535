"""bridge: a veth pair between the container and a bridge of the host.

Addresses are asked for first, so that the pair is born with everything it needs and no packet can leave half configured.

The bridge itself stays when its last container has gone, as the standard plugin leaves it: it carries the gateway address, and
the node's administrator may have added to it. Rules in nftables go with the last attachment, tables and all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni import link, netns, nft, wire
from cni.errors import CniFault, Code, Malformed
from cni.link import End, Link, Links
from cni.plugins import ipam, masquerade, veth
from cni.skel import Plugin, Request
from cni.types import Interface, IPConfig, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.types import IPInterface

_UNSUPPORTED = ("vlan", "vlanTrunk", "macspoofchk")
_MAX_MTU = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The plugin's configuration, read."""

    bridge: str
    is_gateway: bool
    is_default_gateway: bool
    force_address: bool
    masquerade: bool
    hairpin: bool
    promiscuous: bool
    isolated: bool
    mtu: int
    mac: str


def add(request: Request) -> Result:
    """Attach the container; when any step fails, undo those before it."""
    settings = read(request)
    with contextlib.ExitStack() as undo:
        undo.callback(_release, request)
        result = ipam.with_gateways(ipam.add(request), compute=settings.is_gateway, default_route=settings.is_default_gateway)
        undo.callback(veth.unplug, request)
        with Links() as host, netns.Namespace(request.netns) as namespace:
            bridge = _bridge(host, settings, result.ips)
            interfaces = _plug(host, namespace, bridge, request, settings, result)
        if settings.masquerade:
            undo.callback(masquerade.delete, request)
            masquerade.add(request, result.ips)
        undo.pop_all()
    return dataclasses.replace(
        result, interfaces=interfaces, ips=tuple(dataclasses.replace(ip, interface=2) for ip in result.ips)
    )


def delete(request: Request) -> None:
    """Detach the container and free its addresses, in the reverse of ADD's order; nothing there is no error."""
    settings = read(request)
    with contextlib.ExitStack() as steps:
        steps.callback(_release, request)
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
        bridge = _is_bridge(host.find(settings.bridge), settings.bridge)
        _check_host_end(host, bridge, result)
    veth.check_inside(request, result)
    if settings.masquerade:
        masquerade.check(request, result.ips)


def gc(request: Request) -> None:
    """Remove the pairs, rules and addresses of this network that belong to no valid attachment."""
    veth.collect(request, masquerades=read(request).masquerade)


def status(request: Request) -> None:
    """Raise CniFault when ADD could not work: wrong configuration, no nftables, an IPAM plugin that is not ready."""
    settings = read(request)
    if settings.masquerade:
        nft.available()
    with Links() as host:
        found = host.find(settings.bridge)
        if found is not None and found.kind != "bridge":
            raise CniFault(f"link {settings.bridge} exists and is no bridge", code=Code.PLUGIN_NOT_AVAILABLE)
    ipam.other(request, "STATUS")


def read(request: Request) -> Settings:
    """Read the configuration; raise Malformed naming the pointer, CniFault (code 2) for what is not served."""
    config = request.config
    for key in _UNSUPPORTED:
        if config.get(key):
            raise CniFault(f"configuration /{key} is not served by the bundled bridge plugin", code=Code.UNSUPPORTED_FIELD)
    args = wire.mapping(config.get("args") or {}, "/args")
    mac = (
        wire.text(request.runtime_config, "mac", "/runtimeConfig")
        or wire.text(wire.mapping(args.get("cni") or {}, "/args/cni"), "mac", "/args/cni")
        or request.args.get("MAC", "")
    )
    settings = Settings(
        bridge=wire.text(config, "bridge") or "cni0",
        is_gateway=wire.flag(config, "isGateway") or wire.flag(config, "isDefaultGateway"),
        is_default_gateway=wire.flag(config, "isDefaultGateway"),
        force_address=wire.flag(config, "forceAddress"),
        masquerade=wire.flag(config, "ipMasq"),
        hairpin=wire.flag(config, "hairpinMode"),
        promiscuous=wire.flag(config, "promiscMode"),
        isolated=wire.flag(config, "portIsolation"),
        mtu=wire.number(config, "mtu") or 0,
        mac=mac,
    )
    _validate(settings)
    return settings


def _validate(settings: Settings) -> None:
    if settings.hairpin and settings.promiscuous:
        raise Malformed("cannot be combined with hairpinMode", "/promiscMode")
    if not 0 <= settings.mtu <= _MAX_MTU:
        raise Malformed(f"must be between 0 and {_MAX_MTU}", "/mtu")
    if settings.mac:
        try:
            link.mac_bytes(settings.mac)
        except ValueError as error:
            raise Malformed(str(error), "/runtimeConfig/mac") from None
    if len(settings.bridge) > 15 or re.search(r"[/:\s]", settings.bridge):
        raise Malformed("must have 1 to 15 characters without '/', ':' and blanks", "/bridge")


def _bridge(host: Links, settings: Settings, ips: Sequence[IPConfig]) -> Link:
    """Give the bridge, made and addressed when it is not; the one thing that ADD leaves behind for others."""
    bridge = host.find(settings.bridge)
    if bridge is None:
        _make_bridge(host, settings)
        bridge = host.find(settings.bridge)
    bridge = _is_bridge(bridge, settings.bridge)
    wanted = link.UP | (link.PROMISC if settings.promiscuous else 0)
    if bridge.flags & wanted != wanted:
        host.set_flags(bridge.index, wanted, wanted)
    if settings.is_gateway:
        _address_bridge(host, bridge, settings, ips)
        if any(ip.address.version == 4 for ip in ips):
            netns.write_setting("ipv4/ip_forward", "1")
        if any(ip.address.version == 6 for ip in ips):
            netns.write_setting("ipv6/conf/all/forwarding", "1")
    return bridge


def _make_bridge(host: Links, settings: Settings) -> None:
    # A bridge without an address of its own takes the lowest of its ports, and so changes it as pods come and go.
    own = ":".join(f"{byte:02x}" for byte in (0x0A, 0x58, *os.urandom(4)))
    with contextlib.suppress(FileExistsError):
        host.add_bridge(settings.bridge, mac=own, mtu=settings.mtu)
        # Its link-local address would be tentative for a second or two, in which the host forwards no IPv6 to it.
        if netns.read_setting(f"ipv6/conf/{settings.bridge}/accept_dad") is not None:
            netns.write_setting(f"ipv6/conf/{settings.bridge}/accept_dad", "0")


def _is_bridge(found: Link | None, name: str) -> Link:
    if found is None:
        raise CniFault(f"bridge {name} is gone")
    if found.kind != "bridge":
        raise CniFault(f"link {name} exists and is no bridge: remove or rename it")
    return found


def _address_bridge(host: Links, bridge: Link, settings: Settings, ips: Sequence[IPConfig]) -> None:
    present = host.addresses(bridge.index)
    for ip in ips:
        if ip.gateway is None:
            continue
        wanted: IPInterface = type(ip.address)((ip.gateway.packed, ip.address.network.prefixlen))
        if wanted in present:
            continue
        for one in present:
            if one.version == wanted.version and one.network.overlaps(wanted.network):
                if not settings.force_address:
                    raise CniFault(f"bridge {bridge.name} has address {one}, {wanted} is wanted: remove it or set forceAddress")
                host.remove_address(bridge.index, one)
        if wanted.version == 6 and netns.read_setting(f"ipv6/conf/{bridge.name}/disable_ipv6") == "1":
            netns.write_setting(f"ipv6/conf/{bridge.name}/disable_ipv6", "0")
        host.add_address(bridge.index, wanted)


def _plug(
    host: Links, namespace: netns.Namespace, bridge: Link, request: Request, settings: Settings, result: Result
) -> tuple[Interface, ...]:
    """Make the pair and configure both ends; give the bridge, the host's end and the container's as interfaces."""
    mac = settings.mac or (link.mac_for(result.ips[0].address.ip) if result.ips else "")
    here = End(name=veth.host_name(request), master=bridge.index, up=True)
    there = End(name=request.ifname, mac=mac, netns=namespace.fd)  # cannot be born up: it has no peer yet
    with namespace.entered(), Links() as inside:
        port, container = veth.plug(request, host, inside, here, there, settings.mtu)
        host.set_port(
            port,
            hairpin=settings.hairpin,
            isolated=settings.isolated,
            alias=nft.owner(request.network, request.container_id, request.ifname),
        )
        ipam.configure(inside, container, result)
    return (
        Interface(name=bridge.name, mac=bridge.mac, mtu=bridge.mtu),
        Interface(name=port.name, mac=port.mac, mtu=port.mtu),
        Interface(name=container.name, mac=container.mac, mtu=container.mtu, sandbox=request.netns),
    )


def _release(request: Request) -> None:
    ipam.other(request, "DEL")


def _check_host_end(host: Links, bridge: Link, result: Result) -> None:
    ends = [one.name for one in result.interfaces if not one.sandbox and one.name != bridge.name]
    for name in ends[:1]:  # plugins that follow may have added links of their own
        found = host.find(name)
        if found is None or not found.is_up:
            raise CniFault(f"link {name} of the host is {'down' if found else 'gone'}")
        if found.master != bridge.index:
            raise CniFault(f"link {name} of the host is no port of bridge {bridge.name} any more")


PLUGIN = Plugin(name="bridge", add=add, delete=delete, check=check, gc=gc, status=status)
