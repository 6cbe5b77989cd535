"""What our own netlink code claims, read back by a library that shares nothing with it: pyroute2 decodes the namespace."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from cni.link import LOOPBACK_INDEX, Links
from cni.netns import Namespace
from tests.support.tools import find_tool
from tests.system.cni_node import Node, in_child

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.system


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a reader finds: links by name as (mac, mtu, up, kind, master), addresses, routes as (destination, gateway)."""

    links: dict[str, tuple[str, int, bool, str, int]]
    addresses: dict[str, set[str]]
    routes: set[tuple[str, str]]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path, "bundled")
    yield made
    made.close()


@contextmanager
def inside(netns: str) -> Iterator[None]:
    """Enter a namespace, in a child that ends afterwards; "" is the host's."""
    if not netns:
        yield
        return
    with Namespace(netns) as namespace, namespace.entered():
        yield


def _link(message: Any) -> tuple[str, int, bool, str, int]:
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info is not None else ""
    master = message.get_attr("IFLA_MASTER") or 0
    return message.get_attr("IFLA_ADDRESS"), message.get_attr("IFLA_MTU"), bool(message["flags"] & 1), kind or "", master


def _destination(message: Any) -> str:
    version = 4 if message["family"] == 2 else 6
    target = message.get_attr("RTA_DST") or ("0.0.0.0" if version == 4 else "::")
    return f"{ipaddress.ip_address(target)}/{message['dst_len']}"


def by_pyroute2(netns: str = "") -> Seen:
    """Read a namespace, the host's when there is no path, in a child: importing the library costs what it costs."""

    def read() -> Seen:
        with inside(netns):
            import pyroute2

            with pyroute2.IPRoute() as kernel:
                found = list(kernel.get_links())
                names = {one["index"]: one.get_attr("IFLA_IFNAME") for one in found}
                addresses: dict[str, set[str]] = {name: set() for name in names.values()}
                for one in kernel.get_addr():
                    if ipaddress.ip_address(one.get_attr("IFA_ADDRESS")).is_link_local:
                        continue  # the kernel's own; cni.link passes them over
                    addresses[names[one["index"]]].add(f"{one.get_attr('IFA_ADDRESS')}/{one['prefixlen']}")
                routes = [one for family in (2, 10) for one in kernel.get_routes(family=family, table=254)]
                return Seen(
                    links={one.get_attr("IFLA_IFNAME"): _link(one) for one in found},
                    addresses=addresses,
                    routes={
                        (_destination(one), one.get_attr("RTA_GATEWAY") or "")
                        for one in routes
                        if netns and names.get(one.get_attr("RTA_OIF")) == "eth0"
                    },
                )

    return in_child(read)


def by_ourselves(netns: str = "") -> Seen:
    """Read the same with cni.link."""

    def read() -> Seen:
        with inside(netns), Links() as links:
            eth0 = links.find("eth0") if netns else None
            known = links.routes(eth0.index) if eth0 is not None else []
            return Seen(
                links={one.name: (one.mac, one.mtu, one.is_up, one.kind, one.master) for one in links.all()},
                addresses={one.name: {str(address) for address in links.addresses(one.index)} for one in links.all()},
                routes={(str(one.dst), str(one.gateway) if one.gateway else "") for one in known},
            )

    return in_child(read)


def test_what_add_claims_is_what_another_reader_finds(node: Node) -> None:
    pod = node.pod()
    result = node.add(pod)
    seen = by_pyroute2(f"/run/netns/{pod}")
    (inside,) = [one for one in result.interfaces if one.sandbox]
    mac, mtu, up, kind, _master = seen.links["eth0"]
    assert (inside.name, inside.mac, up, kind) == ("eth0", mac, True, "veth")
    assert mtu == inside.mtu or not inside.mtu
    assert seen.links["lo"][2]
    claimed = {str(one.address) for one in result.ips}
    assert len(claimed) == 2
    assert claimed == seen.addresses["eth0"]
    gateways = {("0.0.0.0/0" if one.gateway.version == 4 else "::/0", str(one.gateway)) for one in result.ips if one.gateway}
    assert len(gateways) == 2
    assert gateways <= seen.routes
    host = by_pyroute2()
    ports = {one.name: one.mac for one in result.interfaces if not one.sandbox}
    for name, claimed_mac in ports.items():
        assert host.links[name][0] == claimed_mac
    (port,) = [name for name in ports if name != node.bridge]
    assert host.links[port][2:4] == (True, "veth")
    assert {str(one.gateway) for one in result.ips} <= {address.partition("/")[0] for address in host.addresses[node.bridge]}


def test_both_readers_agree(node: Node) -> None:
    pods = [node.pod() for _ in range(2)]
    for pod in pods:
        node.add(pod)
    for pod in pods:
        assert by_ourselves(f"/run/netns/{pod}") == by_pyroute2(f"/run/netns/{pod}")
    ours, theirs = by_ourselves(), by_pyroute2()
    assert {name: link for name, link in ours.links.items() if name == node.bridge or link[4]} == {
        name: link for name, link in theirs.links.items() if name == node.bridge or link[4]
    }
    assert ours.addresses[node.bridge] == theirs.addresses[node.bridge]
    assert LOOPBACK_INDEX == 1


def tables() -> set[str]:
    listing = subprocess.run([find_tool("nft"), "-j", "list", "tables"], check=True, capture_output=True).stdout
    return {entry["table"]["name"] for entry in json.loads(listing)["nftables"] if "table" in entry}


def test_nothing_but_the_bridge_remains_after_the_last_pod(node: Node) -> None:
    """Rules go with the last attachment, table and all; the bridge stays, as the standard plugin leaves it."""
    before = tables()
    pods = [node.pod() for _ in range(2)]
    for pod in pods:
        node.add(pod, [{"hostPort": 18080 + len(pod) % 7 + pods.index(pod), "containerPort": 80, "protocol": "tcp"}])
    assert any(name.startswith("wherry-") for name in tables())
    for pod in pods:
        node.delete(pod)
    assert tables() == before
    assert node.bridge in by_pyroute2().links
