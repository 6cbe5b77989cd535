"""host-local: addresses from ranges of this node, reserved in files.

Configuration under "ipam": ranges, or the older subnet, rangeStart, rangeEnd and gateway; routes; resolvConf; dataDir.
Capabilities: ipRanges (more range sets, before the configured ones), ips (particular addresses). CNI_ARGS: IP.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cni import wire
from cni.errors import CniFault, Code, Malformed
from cni.plugins import leases, ranges
from cni.plugins.leases import Leases
from cni.skel import Plugin, Request
from cni.types import DNS, IPConfig, Result, Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.plugins.ranges import Range, RangeSet
    from cni.types import IP

_EXHAUSTED = 100  # codes from 100 on are a plugin's own
_MAX_RESOLV_CONF = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The ipam object, read."""

    sets: tuple[RangeSet, ...]
    routes: tuple[Route, ...]
    data_dir: str
    resolv_conf: str
    wanted: tuple[IP, ...]


def add(request: Request) -> Result:
    """Reserve one address from every range set; all or none."""
    settings = read(request)
    owner = (request.container_id, request.ifname)
    dns = _read_resolv_conf(settings.resolv_conf) if settings.resolv_conf else DNS()
    with Leases(settings.data_dir, request.network) as store:
        held = store.of(owner)
        if held:
            who = f"{request.container_id}/{request.ifname}"
            shown = ", ".join(map(str, held))
            raise CniFault(f"{who} holds {shown} in network {request.network} already: delete it first")
        try:
            ips = _reserve_all(store, settings, request.network, owner)
        except Exception:
            store.release(owner)
            raise
    return Result(ips=tuple(ips), routes=settings.routes, dns=dns)


def delete(request: Request) -> None:
    """Free the addresses of the attachment; none is no error."""
    data_dir = _data_dir(request)
    if not leases.exists(data_dir, request.network):
        return
    owner = (request.container_id, request.ifname)
    known = [ip.address.ip for ip in request.prev_result.ips] if request.prev_result else []
    with Leases(data_dir, request.network) as store:
        if not store.release_known(known, owner):
            store.release(owner)


def check(request: Request) -> None:
    """Raise CniFault when the attachment holds no address, or not those of prevResult."""
    data_dir = _data_dir(request)
    owner = (request.container_id, request.ifname)
    held: set[IP] = set()
    if leases.exists(data_dir, request.network):
        with Leases(data_dir, request.network) as store:
            held = set(store.of(owner))
    if not held:
        raise CniFault(f"{request.container_id}/{request.ifname} holds no address in network {request.network}")
    known = {ip.address.ip for ip in request.prev_result.ips} if request.prev_result else held
    missing = held - known
    if missing:
        raise CniFault(f"{', '.join(map(str, sorted(missing, key=str)))} is reserved for the container but not in its result")


def gc(request: Request) -> None:
    """Free what belongs to no valid attachment."""
    data_dir = _data_dir(request)
    if leases.exists(data_dir, request.network):
        with Leases(data_dir, request.network) as store:
            store.collect(request.valid_attachments)


def status(request: Request) -> None:
    """Raise CniFault when the configuration is wrong or its directory cannot be used."""
    settings = read(request)
    with Leases(settings.data_dir, request.network):
        pass


def read(request: Request) -> Settings:
    """Read the configuration; raise Malformed naming the pointer."""
    ipam = wire.mapping(request.config.get("ipam") or {}, "/ipam")
    runtime = request.runtime_config
    sets = ranges.read_sets(runtime, "ipRanges", "/runtimeConfig") + ranges.read_sets(ipam, "ranges", "/ipam")
    if wire.text(ipam, "subnet", "/ipam"):
        sets = ((ranges.read_range(ipam, "/ipam"),), *sets)
    if not sets:
        raise Malformed("must hold at least one range", "/ipam/ranges")
    ranges.check_overlap(sets, "/ipam/ranges")
    return Settings(
        sets=sets,
        routes=wire.each(ipam, "routes", wire.read_route, "/ipam"),
        data_dir=_data_dir(request),
        resolv_conf=wire.text(ipam, "resolvConf", "/ipam"),
        wanted=_wanted(request, runtime),
    )


def _data_dir(request: Request) -> str:
    return wire.text(wire.mapping(request.config.get("ipam") or {}, "/ipam"), "dataDir", "/ipam")


def _wanted(request: Request, runtime: Mapping[str, Any]) -> tuple[IP, ...]:
    """Gather the addresses that were asked for by capability, by "args" and by CNI_ARGS."""
    args = wire.mapping(request.config.get("args") or {}, "/args")
    convention = wire.mapping(args.get("cni") or {}, "/args/cni")
    texts = [*wire.strings(runtime, "ips", "/runtimeConfig"), *wire.strings(convention, "ips", "/args/cni")]
    if request.args.get("IP"):
        texts.append(request.args["IP"])
    wanted = [wire.address(text.partition("/")[0], "/runtimeConfig/ips") for text in texts]
    return tuple(dict.fromkeys(wanted))


def _reserve_all(store: Leases, settings: Settings, network: str, owner: tuple[str, str]) -> list[IPConfig]:
    left = list(settings.wanted)
    ips = []
    for number, range_set in enumerate(settings.sets):
        asked = next((address for address in left if any(one.holds(address) for one in range_set)), None)
        if asked is not None:
            left.remove(asked)
            one = next(one for one in range_set if one.holds(asked))
            _reserve_asked(store, one, asked, owner)
            ips.append(_config(one, asked))
            continue
        one, address = _reserve_next(store, range_set, number, network, owner)
        ips.append(_config(one, address))
    if left:
        raise CniFault(
            f"requested address {', '.join(map(str, left))} is in no range of network {network}", code=Code.INVALID_CONFIG
        )
    return ips


def _reserve_asked(store: Leases, one: Range, address: IP, owner: tuple[str, str]) -> None:
    if address == one.gateway:
        raise CniFault(f"requested address {address} is the gateway of {one.subnet}", code=Code.INVALID_CONFIG)
    if not store.reserve(address, owner):
        raise CniFault(f"requested address {address} is in use", code=_EXHAUSTED)


def _reserve_next(store: Leases, range_set: RangeSet, number: int, network: str, owner: tuple[str, str]) -> tuple[Range, IP]:
    taken: set[str] | None = None
    for one, address in ranges.candidates(range_set, store.last(number)):
        if taken is not None and str(address) in taken:
            continue
        if store.reserve(address, owner):
            store.set_last(number, address)
            return one, address
        if taken is None:  # the first is mostly free; only when it is not does the directory need to be read
            taken = store.taken()
    where = ", ".join(f"{one.start}-{one.end}" for one in range_set)
    raise CniFault(f"no address is left in {where} of network {network}: remove pods or widen the range", code=_EXHAUSTED)


def _config(one: Range, address: IP) -> IPConfig:
    return IPConfig(address=ipaddress.ip_interface(f"{address}/{one.subnet.prefixlen}"), gateway=one.gateway)


def _read_resolv_conf(path: str) -> DNS:
    """Read resolv.conf(5)."""
    found: dict[str, list[str]] = {"nameserver": [], "domain": [], "search": [], "options": []}
    with open(path, "rb") as stream:
        lines = stream.read(_MAX_RESOLV_CONF).decode(errors="replace").splitlines()
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] in found:
            found[words[0]] += words[1:]
    return DNS(
        nameservers=tuple(found["nameserver"]),
        domain=" ".join(found["domain"][-1:]),
        search=tuple(found["search"]),
        options=tuple(found["options"]),
    )


PLUGIN = Plugin(name="host-local", add=add, delete=delete, check=check, gc=gc, status=status)
