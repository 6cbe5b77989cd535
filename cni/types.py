"""The values of CNI's results, in the one shape used inside the package, that of version 1.1 (JSON: cni.wire)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

    IP = IPv4Address | IPv6Address
    IPInterface = IPv4Interface | IPv6Interface
    IPNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """A link that a plugin made; `sandbox` is the netns path, "" for a link of the host."""

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    socket_path: str = ""
    pci_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IPConfig:
    """An address with its prefix length; `interface` is an index into Result.interfaces."""

    address: IPInterface
    gateway: IP | None = None
    interface: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route of the container; without `gw` the interface's gateway is meant. None: the kernel's default."""

    dst: IPNetwork
    gw: IP | None = None
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DNS:
    """Name resolution as a plugin suggests it; the runtime may ignore it."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an attachment looks like after ADD."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IPConfig, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: DNS = DNS()
