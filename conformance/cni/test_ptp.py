"""ptp: a wire between a namespace and the host (https://www.cni.dev/plugins/current/main/ptp/)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from conformance.cni.support.node import HOST, TAMPERINGS, addresses

if TYPE_CHECKING:
    from conformance.cni.support.node import Node

pytestmark = pytest.mark.rule("https://www.cni.dev/plugins/current/main/ptp/")


def wire(node: Node, *subnets: str, **fields: Any) -> dict[str, Any]:
    """Give a configuration with a default route."""
    routes = [{"dst": "0.0.0.0/0"}] + [{"dst": "::/0"} for subnet in subnets if ":" in subnet]
    return node.config("ptp", ipam=node.ipam(*subnets, routes=routes)) | fields


def test_result_is_what_is_there(node: Node) -> None:
    """The interfaces and addresses of the result are real; the host's end comes first."""
    place = node.place()
    result = node.add(place, wire(node))
    host, inside = result["interfaces"]
    assert not host.get("sandbox")
    assert HOST.links()[host["name"]]["address"] == host["mac"]
    assert (inside["name"], inside["sandbox"]) == ("eth0", place.path)
    assert place.links()["eth0"]["address"] == inside["mac"]
    (ip,) = result["ips"]
    assert ip["interface"] == 1
    assert place.addresses("eth0") == {ip["address"]}


def test_who_reaches_whom(node: Node) -> None:
    """The host and all pods reach each other, by way of the host."""
    first, second = node.place(), node.place()
    (one,), (two,) = (addresses(node.add(place, wire(node))) for place in (first, second))
    with first.server("tcp", one, 80), HOST.server("tcp", "10.77.0.1", 81):
        assert second.asks("tcp", one, 80) == two
        assert HOST.asks("tcp", one, 80) == "10.77.0.1"
        assert first.asks("tcp", "10.77.0.1", 81) == one


def test_both_families(node: Node) -> None:
    """Both families can be used at once."""
    place = node.place()
    result = node.add(place, wire(node, "10.77.0.0/24", "fd00:77::/64"))
    with place.server("tcp", "::", 80):
        for address in addresses(result):
            assert HOST.reaches("tcp", address, 80)


def test_mtu(node: Node) -> None:
    """Both ends get the MTU that is asked for."""
    place = node.place()
    result = node.add(place, wire(node, mtu=1400))
    assert place.links()["eth0"]["mtu"] == 1400
    assert HOST.links()[result["interfaces"][0]["name"]]["mtu"] == 1400


def test_masquerade(node: Node) -> None:
    """With ipMasq others see the host's address."""
    place, world = node.place(), node.neighbour()
    node.add(place, wire(node, ipMasq=True))
    with world.server("tcp", "192.0.2.2", 80):
        assert place.asks("tcp", "192.0.2.2", 80) == "192.0.2.1"


def test_dns(node: Node) -> None:
    """The name servers of the configuration are in the result."""
    dns = {"nameservers": ["192.0.2.53"], "search": ["example.org"]}
    result = node.add(node.place(), wire(node, dns=dns))
    assert result["dns"]["nameservers"] == dns["nameservers"]
    assert result["dns"]["search"] == dns["search"]


@pytest.mark.rule("SPEC.md#check-check-containers-networking-is-as-expected")
@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_check(node: Node, tampering: str) -> None:
    """CHECK is content with what ADD did, and not when the link, its address or a route is missing."""
    place = node.place()
    node.add(place, wire(node))
    node.check(place)[0].done()
    place.run(*TAMPERINGS[tampering])
    node.check(place)[0].fault()


@pytest.mark.rule("SPEC.md#del-remove-container-from-network-or-un-apply-modifications")
@pytest.mark.parametrize("masquerade", [False, True])
@pytest.mark.parametrize("gone", [False, True])
def test_delete(node: Node, gone: bool, masquerade: bool) -> None:
    """DEL takes everything, also when the namespace has gone before."""
    place = node.place()
    node.add(place, wire(node, ipMasq=masquerade))
    if gone:
        node.lose(place)
    node.close()
    assert not node.leases()


@pytest.mark.rule("SPEC.md#add-add-container-to-network-or-apply-modifications")
def test_name_that_is_taken(node: Node) -> None:
    """ADD fails when the name is taken, and takes everything back."""
    place = node.place()
    place.run("ip", "link", "add", "eth0", "type", "bridge")
    before = HOST.links().keys()
    node.refused(wire(node), place)
    assert HOST.links().keys() == before
    assert not node.leases()
