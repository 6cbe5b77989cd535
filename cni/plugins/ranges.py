"""Address ranges: read from the configuration, filled in, and walked in the order in which addresses are given out."""

from __future__ import annotations

import ipaddress
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cni import wire
from cni.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cni.types import IP, IPNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Addresses `start` to `end`, both included, of `subnet`; the gateway is never given out."""

    subnet: IPNetwork
    start: IP
    end: IP
    gateway: IP

    def holds(self, address: IP) -> bool:
        """Tell whether `address` can be given out from here."""
        return address.version == self.subnet.version and int(self.start) <= int(address) <= int(self.end)


RangeSet = tuple[Range, ...]


def read_sets(source: Mapping[str, Any], key: str, pointer: str) -> tuple[RangeSet, ...]:
    """Read a list of range sets (lists of ranges) at `key`; raise Malformed naming the pointer."""
    value = source.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, list) for item in value):
        raise Malformed("must be a list of lists of ranges", f"{pointer}/{key}")
    return tuple(_read_set(item, f"{pointer}/{key}/{n}") for n, item in enumerate(value))


def read_range(source: Mapping[str, Any], pointer: str) -> Range:
    """Read one range; what it leaves open is the first and last usable address, and the first one for the gateway."""
    text = wire.text(source, "subnet", pointer)
    subnet = wire.network(text, f"{pointer}/subnet")
    if ipaddress.ip_interface(text).ip != subnet.network_address:
        raise Malformed(f"{text} is an address of {subnet}: name the network", f"{pointer}/subnet")
    if subnet.max_prefixlen - subnet.prefixlen < 2:
        raise Malformed(f"{subnet} is too small to give out addresses", f"{pointer}/subnet")
    first = subnet.network_address + 1
    last = subnet.broadcast_address - (1 if subnet.version == 4 else 0)
    start = wire.optional_address(source, "rangeStart", pointer) or first
    end = wire.optional_address(source, "rangeEnd", pointer) or last
    gateway = wire.optional_address(source, "gateway", pointer) or first
    for key, address in (("rangeStart", start), ("rangeEnd", end)):
        if address not in subnet:
            raise Malformed(f"{address} is not in {subnet}", f"{pointer}/{key}")
    if int(start) > int(end):
        raise Malformed(f"{end} comes before rangeStart {start}", f"{pointer}/rangeEnd")
    return Range(subnet=subnet, start=start, end=end, gateway=gateway)


def check_overlap(sets: tuple[RangeSet, ...], pointer: str) -> None:
    """Refuse ranges that share addresses: two containers would get the same one."""
    ranges = sorted((one for ranges in sets for one in ranges), key=lambda one: (one.subnet.version, int(one.start)))
    for before, after in itertools.pairwise(ranges):
        if before.holds(after.start):
            raise Malformed(f"ranges {before.start}-{before.end} and {after.start}-{after.end} overlap", pointer)


def candidates(ranges: RangeSet, last: IP | None) -> Iterator[tuple[Range, IP]]:
    """Give every address of a range set once, beginning after `last` and coming round, so that addresses rest before reuse."""
    begin = next((n for n, one in enumerate(ranges) if last is not None and one.holds(last)), None)
    if begin is None or last is None:
        for one in ranges:
            yield from _walk(one, int(one.start), int(one.end))
        return
    first = ranges[begin]
    yield from _walk(first, int(last) + 1, int(first.end))
    for n in range(1, len(ranges)):
        one = ranges[(begin + n) % len(ranges)]
        yield from _walk(one, int(one.start), int(one.end))
    yield from _walk(first, int(first.start), int(last))


def _walk(one: Range, start: int, end: int) -> Iterator[tuple[Range, IP]]:
    make = ipaddress.IPv4Address if one.subnet.version == 4 else ipaddress.IPv6Address
    gateway = int(one.gateway)
    for value in range(start, end + 1):
        if value != gateway:
            yield one, make(value)


def _read_set(value: list[Any], pointer: str) -> RangeSet:
    ranges = tuple(read_range(wire.mapping(item, f"{pointer}/{n}"), f"{pointer}/{n}") for n, item in enumerate(value))
    if not ranges:
        raise Malformed("must hold at least one range", pointer)
    if len({one.subnet.version for one in ranges}) > 1:
        raise Malformed("mixes ipv4 and ipv6", pointer)
    return ranges
