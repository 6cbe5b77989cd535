"""portmap: ports of the host lead to ports of a pod (https://www.cni.dev/plugins/current/meta/portmap/)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from conformance.cni.support.node import HOST, addresses

if TYPE_CHECKING:
    from conformance.cni.support.node import Node
    from conformance.cni.support.pod import Place

pytestmark = pytest.mark.rule("https://www.cni.dev/plugins/current/meta/portmap/")
WORLD, GATE = "192.0.2.2", "192.0.2.1"


def mapping(host: int, container: int, **fields: Any) -> dict[str, Any]:
    return {"hostPort": host, "containerPort": container, "protocol": "tcp"} | fields


def attach(node: Node, *mappings: dict[str, Any], subnets: tuple[str, ...] = (), **fields: Any) -> tuple[Place, list[str]]:
    """Make a pod with mapped ports; give it and its addresses."""
    place = node.place()
    ports = node.config("portmap", runtimeConfig={"portMappings": list(mappings)}) | fields
    return place, addresses(node.add(place, node.on_bridge(*subnets), ports))


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_from_outside(node: Node, kind: str) -> None:
    """Another machine reaches the pod by the host's address, and the pod sees its address."""
    world = node.neighbour()
    place, (address,) = attach(node, mapping(8080, 80, protocol=kind))
    with place.server(kind, address, 80):
        assert world.asks(kind, GATE, 8080) == WORLD


@pytest.mark.parametrize("address", [GATE, "10.77.0.1", "127.0.0.1"])
def test_from_the_host(node: Node, address: str) -> None:
    """The host reaches the pod by every address of its own, also by 127.0.0.1."""
    node.neighbour()
    place, (own,) = attach(node, mapping(8080, 80))
    with place.server("tcp", own, 80):
        assert HOST.asks("tcp", address, 8080)


def test_from_another_pod(node: Node) -> None:
    """A pod of the same network reaches it by the host's address."""
    place, (own,) = attach(node, mapping(8080, 80))
    other, _addresses = attach(node)
    with place.server("tcp", own, 80):
        assert other.asks("tcp", "10.77.0.1", 8080)


def test_from_itself(node: Node) -> None:
    """A pod reaches itself by the host's address, over a bridge that sends frames back."""
    place = node.place()
    ports = node.config("portmap", runtimeConfig={"portMappings": [mapping(8080, 80)]})
    (own,) = addresses(node.add(place, node.on_bridge() | {"hairpinMode": True}, ports))
    with place.server("tcp", own, 80):
        assert place.asks("tcp", "10.77.0.1", 8080)


def test_only_what_is_mapped(node: Node) -> None:
    """Other ports and the other protocol of the same number stay the host's."""
    world = node.neighbour()
    place, (own,) = attach(node, mapping(8080, 80))
    with place.server("tcp", own, 80), place.server("udp", own, 80), HOST.server("tcp", GATE, 8081):
        assert world.asks("udp", GATE, 8080) is None
        assert world.asks("tcp", GATE, 8081) == WORLD
        assert world.asks("tcp", GATE, 80) is None


def test_many(node: Node) -> None:
    """A pod may have many ports, and pods have theirs."""
    world = node.neighbour()
    first, (one,) = attach(node, mapping(8080, 80), mapping(8081, 81), mapping(8080, 90, protocol="udp"))
    second, (two,) = attach(node, mapping(9080, 80))
    with first.server("tcp", one, 81), first.server("udp", one, 90), second.server("tcp", two, 80):
        assert world.asks("tcp", GATE, 8081) == WORLD
        assert world.asks("udp", GATE, 8080) == WORLD
        assert world.asks("tcp", GATE, 9080) == WORLD


def test_host_address(node: Node) -> None:
    """A mapping of one host address serves that one alone."""
    world = node.neighbour()
    HOST.run("ip", "address", "add", "192.0.2.9/24", "dev", f"wire{node.word}")
    place, (own,) = attach(node, mapping(8080, 80, hostIP="192.0.2.9"))
    with place.server("tcp", own, 80):
        assert world.asks("tcp", "192.0.2.9", 8080) == WORLD
        assert world.asks("tcp", GATE, 8080) is None


def test_ipv6(node: Node) -> None:
    """The IPv6 address of a pod is reached by the host's."""
    place, (_v4, own) = attach(node, mapping(8080, 80), subnets=("10.77.0.0/24", "fd00:77::/64"))
    other, _addresses = attach(node, subnets=("10.77.0.0/24", "fd00:77::/64"))
    with place.server("tcp", own, 80):
        assert other.reaches("tcp", "fd00:77::1", 8080)


def test_delete(node: Node) -> None:
    """After DEL the port is the host's again."""
    world = node.neighbour()
    place, (own,) = attach(node, mapping(8080, 80))
    with place.server("tcp", own, 80):
        assert world.asks("tcp", GATE, 8080)
    node.delete(place)
    with HOST.server("tcp", GATE, 8080):
        assert world.asks("tcp", GATE, 8080) == WORLD


def test_port_again(node: Node) -> None:
    """A port that was freed can be mapped to another pod, also after the first one's namespace was lost."""
    world = node.neighbour()
    first, _addresses = attach(node, mapping(8080, 80))
    node.lose(first)
    node.delete(first, gone=True)
    second, (own,) = attach(node, mapping(8080, 80))
    with second.server("tcp", own, 80):
        assert world.asks("tcp", GATE, 8080) == WORLD


@pytest.mark.rule("SPEC.md#check-check-containers-networking-is-as-expected")
def test_check(node: Node) -> None:
    """CHECK is content with what ADD did, and not when the rules are gone."""
    place, _addresses = attach(node, mapping(8080, 80))
    for answer in node.check(place):
        answer.done()
    HOST.run("nft", "flush", "ruleset")
    node.check(place)[1].fault()


def test_without_mappings(node: Node) -> None:
    """Without mappings it does nothing, and hands on what it was given."""
    place, (own,) = attach(node)
    with place.server("tcp", own, 80):
        assert HOST.asks("tcp", own, 80)


@pytest.mark.parametrize(
    "fields",
    [
        {"hostPort": -1},
        {"hostPort": 65536},
        {"containerPort": 0},
        {"hostPort": "80"},
        {"protocol": "pigeon"},
        {"hostIP": "text"},
    ],
    ids=str,
)
def test_mapping_that_cannot_be(node: Node, fields: dict[str, Any]) -> None:
    """A port or address that is none is refused."""
    place = node.place()
    before = node.add(place, node.on_bridge())
    config = node.config("portmap", runtimeConfig={"portMappings": [mapping(8080, 80) | fields]}, prevResult=before)
    node.refused(config, place)
