"""portmap: ports of the host lead to ports of the container.

    prerouting, output   what goes to an address of the host is looked up by protocol and port, and redirected (dnat);
                         mappings with a hostIP are looked up by that address first
    postrouting          what was redirected is looked up by the container's address and port; when it comes from the
                         container's own network or from localhost, its answer would not come back this way, so it is
                         masqueraded (with masqAll: whatever its source)

Packets to 127.0.0.0/8 that do not come from this host are dropped: reaching a pod from localhost needs route_localnet, and
that alone would open the host's loopback services to its neighbours.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni import conntrack, netns, nft, wire
from cni.errors import CniFault, Code, Malformed
from cni.link import Links
from cni.nft import Conflict, Element
from cni.plugins import previous
from cni.skel import Plugin, Request

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cni.types import IP, IPConfig, Result

_NAME = "wherry-portmap"
_SETUP = f"""\
add table inet {_NAME}
add map inet {_NAME} any4 {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
add map inet {_NAME} any6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
add map inet {_NAME} host4 {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
add map inet {_NAME} host6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
add map inet {_NAME} return4 {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
add map inet {_NAME} return6 {{ type ipv6_addr . inet_proto . inet_service : verdict; }}
add chain inet {_NAME} to-containers
flush chain inet {_NAME} to-containers
add rule inet {_NAME} to-containers dnat ip to ip daddr . meta l4proto . th dport map @host4
add rule inet {_NAME} to-containers dnat ip6 to ip6 daddr . meta l4proto . th dport map @host6
add rule inet {_NAME} to-containers fib daddr type local dnat ip to meta l4proto . th dport map @any4
add rule inet {_NAME} to-containers ip6 daddr != ::1 fib daddr type local dnat ip6 to meta l4proto . th dport map @any6
add chain inet {_NAME} prerouting {{ type nat hook prerouting priority -100; }}
flush chain inet {_NAME} prerouting
add rule inet {_NAME} prerouting jump to-containers
add chain inet {_NAME} output {{ type nat hook output priority -100; }}
flush chain inet {_NAME} output
add rule inet {_NAME} output jump to-containers
add chain inet {_NAME} postrouting {{ type nat hook postrouting priority 99; }}
flush chain inet {_NAME} postrouting
add rule inet {_NAME} postrouting ct status dnat ip daddr . meta l4proto . th dport vmap @return4
add rule inet {_NAME} postrouting ct status dnat ip6 daddr . meta l4proto . th dport vmap @return6
add chain inet {_NAME} guard {{ type filter hook prerouting priority -300; }}
flush chain inet {_NAME} guard
add rule inet {_NAME} guard iifname != "lo" ip daddr 127.0.0.0/8 drop
"""
_EVERYTHING = f"""\
add chain inet {_NAME} everything
flush chain inet {_NAME} everything
add rule inet {_NAME} everything masquerade
"""
_TABLE = nft.Table(
    name=_NAME,
    setup=_SETUP,
    base="postrouting",
    maps=("any4", "any6", "host4", "host6", "return4", "return6"),
)
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}
_LOOPBACK_BYTE = b"\x7f"  # of 127.0.0.0/8, in front of a key of host4
_UNSUPPORTED = ("conditionsV4", "conditionsV6", "externalSetMarkChain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """One host port; `host_ip` None means every address of the host, `family` which one ("" both)."""

    protocol: str
    host_port: int
    container_port: int
    host_ip: IP | None
    family: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The plugin's configuration, read."""

    forwards: tuple[Forward, ...]
    snat: bool
    masquerade_all: bool


def add(request: Request) -> Result:
    """Redirect the ports that the runtime asked for; all or none."""
    settings = read(request)
    result = previous.result(request)
    elements = _elements(request, settings, result)
    if not elements:
        return result
    if settings.snat and any(element.map == "any4" or element.key[:1] == _LOOPBACK_BYTE for element in elements):
        _route_localhost(result)
    chains = _EVERYTHING if settings.masquerade_all else "".join(_chain(ip) for ip in _addresses(result))
    try:
        _TABLE.add(elements, chains)
    except Conflict as fault:
        ports = ", ".join(f"{one.host_port}/{one.protocol}" for one in settings.forwards)
        raise CniFault(f"a host port of {ports} is mapped to another container already", details=fault.details) from fault
    _forget_flows(settings)
    return result


def delete(request: Request) -> None:
    """Stop redirecting to the attachment; nothing there is no error."""
    owner = nft.owner(request.network, request.container_id, request.ifname)
    _TABLE.remove(owner.__eq__, owner)
    _forget_flows(read(request))


def check(request: Request) -> None:
    """Raise CniFault when a redirection is missing."""
    settings = read(request)
    wanted = {(element.map, element.key) for element in _elements(request, settings, previous.result(request))}
    owner = nft.owner(request.network, request.container_id, request.ifname)
    if len(_TABLE.owned(owner)) < len(wanted):
        raise CniFault(f"host ports of {request.container_id}/{request.ifname} are missing from table inet {_NAME}")


def gc(request: Request) -> None:
    """Stop redirecting to every attachment of the network that is not valid."""
    _TABLE.remove(nft.stale(request.network, request.valid_attachments))


def status(request: Request) -> None:
    """Raise CniFault when the configuration is wrong or nftables cannot be used."""
    read(request)
    nft.available()


def read(request: Request) -> Settings:
    """Read the configuration; raise Malformed naming the pointer, CniFault (code 2) for what is not served."""
    for key in _UNSUPPORTED:
        if request.config.get(key):
            raise CniFault(f"configuration /{key} is not served by the bundled portmap plugin", code=Code.UNSUPPORTED_FIELD)
    forwards = wire.each(request.runtime_config, "portMappings", _forward, "/runtimeConfig")
    return Settings(
        forwards=tuple(one for one in forwards if one.host_port),
        snat=wire.flag(request.config, "snat", default=True),
        masquerade_all=wire.flag(request.config, "masqAll"),
    )


def _forward(source: Mapping[str, Any], pointer: str) -> Forward:
    protocol = (wire.text(source, "protocol", pointer) or "tcp").lower()
    if protocol not in _PROTOCOLS:
        raise Malformed(f"must be one of {', '.join(_PROTOCOLS)}", f"{pointer}/protocol")
    host_ip = wire.optional_address(source, "hostIP", pointer)
    everywhere = host_ip is None or host_ip == ipaddress.ip_address("0.0.0.0" if host_ip.version == 4 else "::")
    return Forward(
        protocol=protocol,
        host_port=_port(source, "hostPort", pointer, least=0),
        container_port=_port(source, "containerPort", pointer, least=1),
        host_ip=None if everywhere else host_ip,
        family=host_ip.version if host_ip is not None else 0,
    )


def _port(source: Mapping[str, Any], key: str, pointer: str, *, least: int) -> int:
    value = wire.number(source, key, pointer) or 0
    if not least <= value <= 65535:
        raise Malformed(f"must be between {least} and 65535", f"{pointer}/{key}")
    return value


def _addresses(result: Result) -> list[IPConfig]:
    """Give the container's address to redirect to, the first of each family that is in a namespace."""
    chosen: dict[int, IPConfig] = {}
    for ip in result.ips:
        inside = ip.interface is None or (
            0 <= ip.interface < len(result.interfaces) and bool(result.interfaces[ip.interface].sandbox)
        )
        if inside:
            chosen.setdefault(ip.address.version, ip)
    return list(chosen.values())


def _elements(request: Request, settings: Settings, result: Result) -> list[Element]:
    owner = nft.owner(request.network, request.container_id, request.ifname)
    elements = []
    returns: dict[bytes, Element] = {}
    for ip in _addresses(result):
        version, address = ip.address.version, ip.address.ip
        chain = "everything" if settings.masquerade_all else nft.chain_name("net", ip.address.network)
        for one in settings.forwards:
            if one.family not in {0, version}:
                continue
            protocol = _PROTOCOLS[one.protocol]
            where, key = f"any{version}", nft.port_key(protocol, one.host_port)
            if one.host_ip is not None:
                where, key = f"host{version}", nft.address_key(one.host_ip) + key
            value = nft.port_value(address, one.container_port)
            elements.append(Element(map=where, key=key, value=value, owner=owner))
            if settings.snat:
                key = nft.address_key(address) + nft.port_key(protocol, one.container_port)
                returns[key] = Element(map=f"return{version}", key=key, jump=chain, owner=owner)
    return [*elements, *returns.values()]


def _chain(ip: IPConfig) -> str:
    network = ip.address.network
    name = nft.chain_name("net", network)
    sources = f"ip saddr {{ {network}, 127.0.0.0/8 }}" if network.version == 4 else f"ip6 saddr {network}"
    return (
        f"add chain inet {_NAME} {name}\nflush chain inet {_NAME} {name}\nadd rule inet {_NAME} {name} {sources} masquerade\n"
    )


def _route_localhost(result: Result) -> None:
    """Let packets from 127.0.0.1 leave through the link towards the container."""
    with Links() as links:
        for ip in _addresses(result):
            if ip.address.version == 4:
                found = links.at(links.route_to(ip.address.ip))
                if found is not None:
                    netns.write_setting(f"ipv4/conf/{found.name}/route_localnet", "1")


def _forget_flows(settings: Settings) -> None:
    """Drop what the kernel remembers of UDP flows to these ports: it would keep sending them where they went before."""
    ports = {one.host_port for one in settings.forwards if one.protocol == "udp"}
    if ports:
        conntrack.forget_udp(ports)


PLUGIN = Plugin(name="portmap", add=add, delete=delete, check=check, gc=gc, status=status)
