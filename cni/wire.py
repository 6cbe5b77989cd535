"""Results in JSON, in every version of the protocol, and the readers of JSON that the package shares.

    1.1          everything of cni.types
    1.0          no mtu, socketPath or pciID at an interface; no mtu, advmss, priority, table or scope at a route
    0.3.x, 0.4   as 1.0, and each address says its family in "version"
    0.1, 0.2     one "ip4" and one "ip6", each with its gateway and routes; no interfaces

Source: CNI specification 1.1 "Result types", and the specifications of the older tags.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, TypeVar

from cni import version as versions
from cni.errors import CniFault, Code, Malformed
from cni.types import DNS, Interface, IPConfig, Result, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cni.types import IP, IPInterface, IPNetwork

T = TypeVar("T")


def mapping(value: Any, pointer: str) -> Mapping[str, Any]:
    """Give `value` when it is a JSON object; raise Malformed otherwise."""
    if not isinstance(value, dict):
        raise Malformed("must be an object", pointer)
    return value


def text(source: Mapping[str, Any], key: str, pointer: str = "") -> str:
    """Give the string at `key`, "" when absent."""
    value = source.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed("must be a string", f"{pointer}/{key}")
    return value


def number(source: Mapping[str, Any], key: str, pointer: str = "") -> int | None:
    """Give the integer at `key`, None when absent."""
    value = source.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise Malformed("must be an integer", f"{pointer}/{key}")
    return value


def flag(source: Mapping[str, Any], key: str, pointer: str = "", *, default: bool = False) -> bool:
    """Give the boolean at `key`, `default` when absent."""
    value = source.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Malformed("must be true or false", f"{pointer}/{key}")
    return value


def strings(source: Mapping[str, Any], key: str, pointer: str = "") -> tuple[str, ...]:
    """Give the list of strings at `key`, empty when absent."""
    value = source.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Malformed("must be a list of strings", f"{pointer}/{key}")
    return tuple(value)


def each(source: Mapping[str, Any], key: str, read: Callable[[Mapping[str, Any], str], T], pointer: str = "") -> tuple[T, ...]:
    """Read every object of the list at `key` with `read(object, pointer)`; empty when absent."""
    value = source.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise Malformed("must be a list", f"{pointer}/{key}")
    return tuple(read(mapping(item, f"{pointer}/{key}/{n}"), f"{pointer}/{key}/{n}") for n, item in enumerate(value))


def address(value: str, pointer: str) -> IP:
    """Read an address without prefix length."""
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        raise Malformed(f"{value!r} is not an ip address", pointer) from None


def interface_address(value: str, pointer: str) -> IPInterface:
    """Read an address with its prefix length, as in 10.0.0.5/24."""
    try:
        return ipaddress.ip_interface(value)
    except ValueError:
        raise Malformed(f"{value!r} is not an ip address with a prefix length", pointer) from None


def network(value: str, pointer: str) -> IPNetwork:
    """Read a network; bits behind the prefix are dropped, as peers do."""
    try:
        return ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise Malformed(f"{value!r} is not an ip network", pointer) from None


def optional_address(source: Mapping[str, Any], key: str, pointer: str = "") -> IP | None:
    """Give the address at `key`, None when absent or empty."""
    value = text(source, key, pointer)
    return address(value, f"{pointer}/{key}") if value else None


def read_route(source: Mapping[str, Any], pointer: str) -> Route:
    """Read one route."""
    return Route(
        dst=network(text(source, "dst", pointer), f"{pointer}/dst"),
        gw=optional_address(source, "gw", pointer),
        mtu=number(source, "mtu", pointer),
        advmss=number(source, "advmss", pointer),
        priority=number(source, "priority", pointer),
        table=number(source, "table", pointer),
        scope=number(source, "scope", pointer),
    )


def read_dns(source: Mapping[str, Any], pointer: str = "/dns") -> DNS:
    """Read the dns object of a result or of a configuration."""
    return DNS(
        nameservers=strings(source, "nameservers", pointer),
        domain=text(source, "domain", pointer),
        search=strings(source, "search", pointer),
        options=strings(source, "options", pointer),
    )


def read_result(value: Any, version: str = versions.UNSTATED) -> Result:
    """Read a result; its own cniVersion wins over `version`. Raises CniFault (code 6) naming the JSON pointer."""
    try:
        source = mapping(value, "")
        version = text(source, "cniVersion") or version
        if not versions.at_least(version, "0.3.0"):
            return _read_legacy(source)
        return Result(
            interfaces=each(source, "interfaces", _read_interface),
            ips=each(source, "ips", _read_ip),
            routes=each(source, "routes", read_route),
            dns=read_dns(mapping(source.get("dns") or {}, "/dns")),
        )
    except Malformed as fault:
        raise CniFault(f"result {fault.pointer or '/'}: {fault.reason}", code=Code.DECODING_FAILURE) from None


def write_result(result: Result, version: str = versions.CURRENT) -> dict[str, Any]:
    """Give the JSON value of `result` in the shape of `version`; what that shape cannot say is left out."""
    if not versions.at_least(version, "0.3.0"):
        return _write_legacy(result, version)
    extended = versions.at_least(version, "1.1.0")
    family = not versions.at_least(version, "1.0.0")
    value: dict[str, Any] = {"cniVersion": version}
    if result.interfaces:
        value["interfaces"] = [_write_interface(interface, extended=extended) for interface in result.interfaces]
    if result.ips:
        value["ips"] = [_write_ip(ip, family=family) for ip in result.ips]
    if result.routes:
        value["routes"] = [_write_route(route, extended=extended) for route in result.routes]
    value["dns"] = write_dns(result.dns)
    return value


def write_dns(dns: DNS) -> dict[str, Any]:
    """Give the JSON value of `dns` without its empty fields."""
    value: dict[str, Any] = {
        "nameservers": list(dns.nameservers),
        "domain": dns.domain,
        "search": list(dns.search),
        "options": list(dns.options),
    }
    return {key: item for key, item in value.items() if item}


def _read_interface(source: Mapping[str, Any], pointer: str) -> Interface:
    return Interface(
        name=text(source, "name", pointer),
        mac=text(source, "mac", pointer),
        mtu=number(source, "mtu", pointer) or 0,
        sandbox=text(source, "sandbox", pointer),
        socket_path=text(source, "socketPath", pointer),
        pci_id=text(source, "pciID", pointer),
    )


def _write_interface(interface: Interface, *, extended: bool) -> dict[str, Any]:
    value: dict[str, Any] = {"name": interface.name, "mac": interface.mac, "sandbox": interface.sandbox}
    if extended:
        value |= {"mtu": interface.mtu, "socketPath": interface.socket_path, "pciID": interface.pci_id}
    return {key: item for key, item in value.items() if item or key == "name"}


def _read_ip(source: Mapping[str, Any], pointer: str) -> IPConfig:
    return IPConfig(
        address=interface_address(text(source, "address", pointer), f"{pointer}/address"),
        gateway=optional_address(source, "gateway", pointer),
        interface=number(source, "interface", pointer),
    )


def _write_ip(ip: IPConfig, *, family: bool) -> dict[str, Any]:
    value: dict[str, Any] = {"address": str(ip.address)}
    if family:
        value["version"] = str(ip.address.version)
    if ip.gateway is not None:
        value["gateway"] = str(ip.gateway)
    if ip.interface is not None:
        value["interface"] = ip.interface
    return value


def _write_route(route: Route, *, extended: bool) -> dict[str, Any]:
    value: dict[str, Any] = {"dst": str(route.dst)}
    if route.gw is not None:
        value["gw"] = str(route.gw)
    if extended:
        extra = {
            "mtu": route.mtu,
            "advmss": route.advmss,
            "priority": route.priority,
            "table": route.table,
            "scope": route.scope,
        }
        value |= {key: item for key, item in extra.items() if item is not None}
    return value


def _read_legacy(source: Mapping[str, Any]) -> Result:
    ips: list[IPConfig] = []
    routes: list[Route] = []
    for key in ("ip4", "ip6"):
        if source.get(key) is None:
            continue
        pointer = f"/{key}"
        one = mapping(source[key], pointer)
        gateway = optional_address(one, "gateway", pointer)
        ips.append(IPConfig(address=interface_address(text(one, "ip", pointer), f"{pointer}/ip"), gateway=gateway))
        routes += each(one, "routes", read_route, pointer)
    return Result(ips=tuple(ips), routes=tuple(routes), dns=read_dns(mapping(source.get("dns") or {}, "/dns")))


def _write_legacy(result: Result, version: str) -> dict[str, Any]:
    value: dict[str, Any] = {"cniVersion": version}
    for family, key in ((4, "ip4"), (6, "ip6")):
        ip = next((ip for ip in result.ips if ip.address.version == family), None)
        if ip is None:
            continue
        one: dict[str, Any] = {"ip": str(ip.address)}
        if ip.gateway is not None:
            one["gateway"] = str(ip.gateway)
        routes = [_write_route(route, extended=False) for route in result.routes if route.dst.version == family]
        if routes:
            one["routes"] = routes
        value[key] = one
    value["dns"] = write_dns(result.dns)
    return value
