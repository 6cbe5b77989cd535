"""bridge: a veth pair between a namespace and a bridge of the host (https://www.cni.dev/plugins/current/main/bridge/)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from conformance.cni.support.node import HOST, MADE_HERE, TAMPERINGS, addresses

if TYPE_CHECKING:
    from conformance.cni.support.node import Node

pytestmark = pytest.mark.rule("https://www.cni.dev/plugins/current/main/bridge/")


def sandboxed(result: dict[str, Any]) -> dict[str, Any]:
    """Give the interface of a result that is in the namespace."""
    links: list[dict[str, Any]] = result["interfaces"]
    (link,) = [link for link in links if link.get("sandbox")]
    return link


def host_end(node: Node, result: dict[str, Any]) -> dict[str, Any]:
    """Give the host's end of the pair, as the kernel shows it."""
    (name,) = [link["name"] for link in result["interfaces"] if not link.get("sandbox") and link["name"] != node.bridge]
    return HOST.links()[name]


def test_result_is_what_is_there(node: Node) -> None:
    """Every interface, hardware address, address and gateway of the result is real."""
    place = node.place()
    result = node.add(place, node.on_bridge())
    inside = place.links()["eth0"]
    link = sandboxed(result)
    assert (link["name"], link["mac"], link["sandbox"]) == ("eth0", inside["address"], place.path)
    (ip,) = result["ips"]
    assert result["interfaces"][ip["interface"]] == link
    assert place.addresses("eth0") == {ip["address"]}
    assert ("default", ip["gateway"]) in place.routes()
    assert "UP" in inside["flags"]
    assert host_end(node, result)["master"] == node.bridge
    (bridge,) = [link for link in result["interfaces"] if link["name"] == node.bridge]
    assert bridge["mac"] == HOST.links()[node.bridge]["address"]
    assert HOST.addresses(node.bridge) == {f"{ip['gateway']}/24"}


def test_hosts_mac_address(node: Node) -> None:
    """The result names the hardware address of the host's end as well, the one that it has."""
    result = node.add(node.place(), node.on_bridge())
    end = host_end(node, result)
    assert {link["mac"] for link in result["interfaces"] if link["name"] == end["ifname"]} == {end["address"]}


def test_who_reaches_whom(node: Node) -> None:
    """The host and the pods of one network reach each other, under their own addresses."""
    first, second = node.place(), node.place()
    (one,), (two,) = (addresses(node.add(place, node.on_bridge())) for place in (first, second))
    with first.server("tcp", one, 80), HOST.server("tcp", "10.77.0.1", 81):
        assert second.asks("tcp", one, 80) == two
        assert HOST.asks("tcp", one, 80) == "10.77.0.1"
        assert first.asks("tcp", "10.77.0.1", 81) == one
    node.delete(second)
    with first.server("tcp", one, 80):
        assert HOST.asks("tcp", one, 80), "the other's end broke this one's"


def test_both_families(node: Node) -> None:
    """An address of each family can be used at once, and both have a way out."""
    place = node.place()
    result = node.add(place, node.on_bridge("10.77.0.0/24", "fd00:77::/64"))
    with place.server("tcp", "::", 80):
        for address in addresses(result):
            assert HOST.reaches("tcp", address, 80)
    assert ("default", "10.77.0.1") in place.routes()
    assert ("default", "fd00:77::1") in place.routes(6)


def test_without_gateway(node: Node) -> None:
    """The bridge has an address, and the pod a default route, only when that is asked for."""
    place = node.place()
    node.add(place, node.on_bridge() | {"isDefaultGateway": False})
    assert not HOST.addresses(node.bridge)
    assert {route[0] for route in place.routes()} == {"10.77.0.0/24"}


def test_gateway_without_default_route(node: Node) -> None:
    """isGateway gives the bridge the gateway's address, and forwarding is on."""
    place = node.place()
    node.add(place, node.on_bridge() | {"isDefaultGateway": False, "isGateway": True})
    assert HOST.addresses(node.bridge) == {"10.77.0.1/24"}
    assert HOST.run("cat", "/proc/sys/net/ipv4/ip_forward").strip() == "1"
    assert {route[0] for route in place.routes()} == {"10.77.0.0/24"}


def test_routes_of_ipam(node: Node) -> None:
    """Routes that ipam gives are made, by the gateway where they name none."""
    place = node.place()
    routes = [{"dst": "192.168.0.0/16"}, {"dst": "198.51.100.0/24", "gw": "10.77.0.9"}]
    config = node.on_bridge() | {"isDefaultGateway": False, "isGateway": True, "ipam": node.ipam(routes=routes)}
    node.add(place, config)
    assert {("192.168.0.0/16", "10.77.0.1"), ("198.51.100.0/24", "10.77.0.9")} <= place.routes()


@pytest.mark.parametrize("ipam", [None, {}])
def test_without_addresses(node: Node, ipam: dict[str, Any] | None) -> None:
    """Without ipam, or with an empty one, it is a wire to the bridge, and nothing more."""
    place = node.place()
    config = node.on_bridge()
    del config["ipam"], config["isDefaultGateway"]
    if ipam is not None:
        config["ipam"] = ipam
    result = node.add(place, config)
    assert not result.get("ips")
    assert "UP" in place.links()["eth0"]["flags"]
    assert not place.addresses("eth0")
    assert host_end(node, result)["master"] == node.bridge


@pytest.mark.parametrize("mtu", [1280, 1400])
def test_mtu(node: Node, mtu: int) -> None:
    """Both ends get the MTU that is asked for."""
    place = node.place()
    result = node.add(place, node.on_bridge() | {"mtu": mtu})
    assert place.links()["eth0"]["mtu"] == mtu
    assert host_end(node, result)["mtu"] == mtu


@pytest.mark.parametrize("hairpin", [False, True])
def test_hairpin(node: Node, hairpin: bool) -> None:
    """hairpinMode lets the bridge send a frame back to where it came from."""
    result = node.add(node.place(), node.on_bridge() | {"hairpinMode": hairpin})
    assert host_end(node, result)["linkinfo"]["info_slave_data"]["hairpin"] is hairpin


def test_promiscuous(node: Node) -> None:
    """promiscMode makes the bridge promiscuous."""
    node.add(node.place(), node.on_bridge() | {"promiscMode": True})
    assert HOST.links()[node.bridge]["promiscuity"] > 0


@pytest.mark.parametrize("way", ["runtimeConfig", "CNI_ARGS"])
def test_mac(node: Node, way: str) -> None:
    """A hardware address can be asked for."""
    place = node.place()
    wanted = "02:00:00:12:34:56"
    more = {"runtimeConfig": {"mac": wanted}} if way == "runtimeConfig" else {}
    result = node.add(place, node.on_bridge() | more, args=f"IgnoreUnknown=1;MAC={wanted}" if way == "CNI_ARGS" else "")
    assert sandboxed(result)["mac"] == wanted
    assert place.links()["eth0"]["address"] == wanted


def test_masquerade(node: Node) -> None:
    """With ipMasq others see the host's address; pods of the network still see each other's."""
    first, second = node.place(), node.place()
    world = node.neighbour()
    (one,), (two,) = (addresses(node.add(place, node.on_bridge() | {"ipMasq": True})) for place in (first, second))
    with world.server("tcp", "192.0.2.2", 80), second.server("tcp", two, 80):
        assert first.asks("tcp", "192.0.2.2", 80) == "192.0.2.1"
        assert first.asks("tcp", two, 80) == one


def test_without_masquerade(node: Node) -> None:
    """Without ipMasq others see the pod's address."""
    place = node.place()
    world = node.neighbour(route="10.77.0.0/24")
    (address,) = addresses(node.add(place, node.on_bridge()))
    with world.server("tcp", "192.0.2.2", 80):
        assert place.asks("tcp", "192.0.2.2", 80) == address


def test_interface_of_another_name(node: Node) -> None:
    """The link has the name that was asked for, and there may be two."""
    place = node.place()
    for name in ("net0", "net1"):
        node.add(place, node.on_bridge() | {"isDefaultGateway": False}, ifname=name)
    assert {"lo", "net0", "net1"} == place.links().keys()


@pytest.mark.rule("SPEC.md#add-add-container-to-network-or-apply-modifications")
def test_name_that_is_taken(node: Node) -> None:
    """ADD fails when the name is taken, and takes everything back, addresses too."""
    place = node.place()
    place.run("ip", "link", "add", "eth0", "type", "bridge")
    before = HOST.links().keys()
    node.refused(node.on_bridge(), place)
    assert HOST.links().keys() - before <= {node.bridge}
    assert not node.leases()


def test_bridge_that_is_none(node: Node) -> None:
    """A link of the bridge's name that is no bridge is refused, and stays as it is."""
    HOST.run("ip", "link", "add", node.bridge, "type", "veth", "peer", "name", "other-end")
    HOST.run("ip", "link", "set", "other-end", "alias", MADE_HERE)
    node.refused(node.on_bridge(), node.place())
    assert HOST.links()[node.bridge]["linkinfo"]["info_kind"] == "veth"
    assert not node.leases()


@pytest.mark.rule("SPEC.md#del-remove-container-from-network-or-un-apply-modifications")
@pytest.mark.parametrize("masquerade", [False, True])
def test_delete(node: Node, masquerade: bool) -> None:
    """DEL takes the pair, the address and the rules, and may be called again."""
    place = node.place()
    config = node.on_bridge() | {"ipMasq": masquerade}
    result = node.add(place, config)
    assert len(node.leases()) == 1
    for _time in range(2):
        node.call("DEL", config | {"prevResult": result}, place).done()
        assert "eth0" not in place.links()
        assert not node.leases()
    node.delete(place)


@pytest.mark.rule("SPEC.md#del-remove-container-from-network-or-un-apply-modifications")
@pytest.mark.parametrize("masquerade", [False, True])
def test_delete_after_the_namespace_is_gone(node: Node, masquerade: bool) -> None:
    """DEL frees what is outside of a namespace that is gone."""
    place = node.place()
    node.add(place, node.on_bridge() | {"ipMasq": masquerade})
    node.lose(place)
    node.close()
    assert not node.leases()


@pytest.mark.rule("SPEC.md#del-remove-container-from-network-or-un-apply-modifications")
def test_delete_without_the_last_result(node: Node) -> None:
    """DEL does its best without prevResult: a runtime may have lost it."""
    place = node.place()
    node.add(place, node.on_bridge())
    node.call("DEL", node.on_bridge(), place).done()
    assert "eth0" not in place.links()
    assert not node.leases()


@pytest.mark.rule("SPEC.md#check-check-containers-networking-is-as-expected")
@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_check(node: Node, tampering: str) -> None:
    """CHECK is content with what ADD did, and not when the link, its address or a route is missing."""
    place = node.place()
    config = node.on_bridge() | {"isDefaultGateway": False, "isGateway": True, "ipam": node.ipam(routes=[{"dst": "0.0.0.0/0"}])}
    node.add(place, config)
    node.check(place)[0].done()
    place.run(*TAMPERINGS[tampering])
    node.check(place)[0].fault()


@pytest.mark.rule("SPEC.md#gc-clean-up-any-stale-resources")
def test_gc(node: Node) -> None:
    """GC takes what belongs to no valid attachment, through ipam as well, and touches nothing else."""
    if "1.1.0" not in node.plugins.spoken:
        pytest.skip("version: GC came with 1.1.0")
    kept, stale = node.place(), node.place()
    result = node.add(kept, node.on_bridge())
    node.add(stale, node.on_bridge())
    valid = {"cni.dev/valid-attachments": [{"containerID": kept.name, "ifname": "eth0"}]}
    node.plugins.call("GC", node.on_bridge() | valid).done()
    assert node.leases() == set(addresses(result))
    with kept.server("tcp", addresses(result)[0], 80):
        assert HOST.asks("tcp", addresses(result)[0], 80)


@pytest.mark.parametrize(
    "fields",
    [
        {"mtu": -1},
        {"mtu": "large"},
        {"ipam": {"type": "no-such-plugin"}},
        {"bridge": 7},
        {"hairpinMode": True, "promiscMode": True},
    ],
    ids=str,
)
def test_configuration_that_cannot_be(node: Node, fields: dict[str, Any]) -> None:
    """What makes no sense is refused, and leaves nothing."""
    place = node.place()
    node.refused(node.on_bridge() | fields, place)
    assert "eth0" not in place.links()
    assert not node.leases()
