"""firewall, bandwidth and tuning: plugins that change what another one made (https://www.cni.dev/plugins/current/meta/)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from conformance.cni.support.node import HOST, addresses

if TYPE_CHECKING:
    from conformance.cni.support.node import Node

DOCUMENTS = "https://www.cni.dev/plugins/current/meta/"
BITS = 8_000_000
"""Bits a second: a megabyte takes a second."""


@pytest.mark.rule(DOCUMENTS + "firewall/")
def test_firewall_lets_traffic_pass(node: Node) -> None:
    """A pod reaches others and is reached."""
    place, world = node.place(), node.neighbour(route="10.77.0.0/24")
    (own,) = addresses(node.add(place, node.on_bridge(), node.config("firewall")))
    with place.server("tcp", own, 80), world.server("tcp", "192.0.2.2", 80):
        assert world.asks("tcp", own, 80) == "192.0.2.2"
        assert place.asks("tcp", "192.0.2.2", 80) == own


@pytest.mark.rule(DOCUMENTS + "firewall/")
def test_firewall_between_bridges(node: Node) -> None:
    """With ingressPolicy same-bridge, pods of one bridge reach each other, those of another do not, and the host does."""
    policy = node.config("firewall", ingressPolicy="same-bridge")
    first, second, stranger = node.place(), node.place(), node.place()
    (one,), (two,) = (addresses(node.add(place, node.on_bridge(), policy)) for place in (first, second))
    other = node.on_bridge("10.78.0.0/24") | {"bridge": f"b2{node.word}", "name": f"other{node.word}"}
    node.add(stranger, other, policy)
    with first.server("tcp", one, 80):
        assert second.asks("tcp", one, 80) == two
        assert HOST.asks("tcp", one, 80) == "10.77.0.1"
        assert stranger.asks("tcp", one, 80) is None
    for place in (first, second, stranger):
        node.delete(place)
    HOST.run("ip", "link", "del", f"b2{node.word}")


@pytest.mark.rule(DOCUMENTS + "firewall/")
def test_firewall_check(node: Node) -> None:
    """CHECK is not content when the rules are gone."""
    place = node.place()
    node.add(place, node.on_bridge(), node.config("firewall"))
    for answer in node.check(place):
        answer.done()
    HOST.run("nft", "flush", "ruleset")
    node.check(place)[1].fault()


@pytest.mark.rule(DOCUMENTS + "firewall/")
def test_firewall_unknown_policy(node: Node) -> None:
    """A policy that nobody knows is refused."""
    place = node.place()
    before = node.add(place, node.on_bridge())
    node.refused(node.config("firewall", ingressPolicy="text", prevResult=before), place)


@pytest.mark.rule(DOCUMENTS + "bandwidth/")
@pytest.mark.parametrize("where", ["configuration", "runtimeConfig"])
@pytest.mark.parametrize("way", ["ingress", "egress"])
def test_bandwidth(node: Node, way: str, where: str) -> None:
    """ingress limits what a pod receives, egress what it sends; the other way is free."""
    limit = {f"{way}Rate": BITS, f"{way}Burst": BITS // 10}
    place = node.place()
    config = node.config("bandwidth", **(limit if where == "configuration" else {"runtimeConfig": {"bandwidth": limit}}))
    (own,) = addresses(node.add(place, node.on_bridge(), config))
    into, out = HOST.seconds_to(place, own), place.seconds_to(HOST, "10.77.0.1")
    slow, fast = (into, out) if way == "ingress" else (out, into)
    assert slow > 0.6, f"a megabyte took {slow:g} s"
    assert fast < slow / 2, f"a megabyte took {fast:g} s where nothing limits it, {slow:g} s where something does"


@pytest.mark.rule(DOCUMENTS + "bandwidth/")
def test_bandwidth_check(node: Node) -> None:
    """CHECK is not content when the limit is gone."""
    place = node.place()
    config = node.config("bandwidth", ingressRate=BITS, ingressBurst=BITS // 10)
    result = node.add(place, node.on_bridge(), config)
    for answer in node.check(place):
        answer.done()
    host = next(link["name"] for link in result["interfaces"] if not link.get("sandbox") and link["name"] != node.bridge)
    HOST.run("tc", "qdisc", "del", "dev", host, "root")
    node.check(place)[1].fault()


@pytest.mark.rule(DOCUMENTS + "bandwidth/")
@pytest.mark.parametrize(
    "fields",
    [
        {"ingressRate": BITS},
        {"egressBurst": BITS},
        {"ingressRate": -1, "ingressBurst": 1},
        {"egressRate": "fast", "egressBurst": 1},
    ],
    ids=str,
)
def test_bandwidth_that_cannot_be(node: Node, fields: dict[str, Any]) -> None:
    """A rate wants a burst, and both are numbers from 1 on."""
    place = node.place()
    before = node.add(place, node.on_bridge())
    node.refused(node.config("bandwidth", prevResult=before) | fields, place)


@pytest.mark.rule(DOCUMENTS + "tuning/")
def test_tuning_sysctl(node: Node) -> None:
    """Sysctls of the network are set in the pod, and the host's stay."""
    key = "net.ipv4.conf.eth0.arp_announce"
    place = node.place()
    node.add(place, node.on_bridge(), node.config("tuning", sysctl={key: "2", "net.core.somaxconn": "500"}))
    assert place.run("cat", "/proc/sys/net/ipv4/conf/eth0/arp_announce").strip() == "2"
    assert place.run("cat", "/proc/sys/net/core/somaxconn").strip() == "500"
    assert HOST.run("cat", "/proc/sys/net/core/somaxconn").strip() != "500"


@pytest.mark.rule(DOCUMENTS + "tuning/")
def test_tuning_sysctl_with_the_links_name(node: Node) -> None:
    """IFNAME in a sysctl's name stands for the link's."""
    place = node.place()
    sysctl = {"net/ipv4/conf/IFNAME/arp_notify": "1"}
    node.add(place, node.on_bridge(), node.config("tuning", sysctl=sysctl), ifname="web.0")
    assert place.run("cat", "/proc/sys/net/ipv4/conf/web.0/arp_notify").strip() == "1"


@pytest.mark.rule(DOCUMENTS + "tuning/")
@pytest.mark.parametrize("key", ["kernel.hostname", "vm.swappiness", "net/../kernel/hostname", "net.ipv4.no_such_thing"])
def test_tuning_other_sysctls(node: Node, key: str) -> None:
    """What is not the network's, leaves it, or does not exist, is refused."""
    place = node.place()
    before = node.add(place, node.on_bridge())
    node.refused(node.config("tuning", sysctl={key: "1"}, prevResult=before), place)


@pytest.mark.rule(DOCUMENTS + "tuning/")
def test_tuning_link(node: Node) -> None:
    """Hardware address, MTU, length of the queue and flags of the link are set, and the result has the address."""
    place = node.place()
    mac = "02:00:00:ab:cd:ef"
    settings = node.config("tuning", mac=mac, mtu=1420, txQLen=777, promisc=True, allmulti=True)
    result = node.add(place, node.on_bridge(), settings)
    link = place.links()["eth0"]
    assert (link["address"], link["mtu"], link["txqlen"]) == (mac, 1420, 777)
    assert {"PROMISC", "ALLMULTI"} <= set(link["flags"])
    assert mac in {interface["mac"] for interface in result["interfaces"] if interface.get("sandbox")}


@pytest.mark.rule(DOCUMENTS + "tuning/")
@pytest.mark.parametrize("way", ["runtimeConfig", "CNI_ARGS", "args.cni.mac"])
def test_tuning_mac_of_the_runtime(node: Node, way: str) -> None:
    """The hardware address may come with the call."""
    mac = "02:00:00:ab:cd:ef"
    ways: dict[str, dict[str, Any]] = {
        "runtimeConfig": {"runtimeConfig": {"mac": mac}},
        "args.cni.mac": {"args": {"cni": {"mac": mac}}},
    }
    more = ways.get(way, {})
    place = node.place()
    before = node.add(place, node.on_bridge())
    config = node.config("tuning", prevResult=before) | more
    node.call("ADD", config, place, CNI_ARGS=f"MAC={mac}" if way == "CNI_ARGS" else "").done()
    assert place.links()["eth0"]["address"] == mac


@pytest.mark.rule(DOCUMENTS + "tuning/")
def test_tuning_is_taken_back(node: Node) -> None:
    """DEL gives the link back what it had, for it may outlive the pod."""
    place = node.place()
    before = node.add(place, node.on_bridge())
    link = place.links()["eth0"]
    config = node.config("tuning", mtu=1420, promisc=True, dataDir=str(node.folder / "tuning"), prevResult=before)
    node.call("ADD", config, place).done()
    assert place.links()["eth0"]["mtu"] == 1420
    node.call("DEL", config, place).done()
    after = place.links()["eth0"]
    assert (after["mtu"], after["promiscuity"]) == (link["mtu"], link["promiscuity"])


@pytest.mark.rule(DOCUMENTS + "tuning/")
def test_tuning_check(node: Node) -> None:
    """CHECK is not content when a setting has changed."""
    place = node.place()
    node.add(place, node.on_bridge(), node.config("tuning", mtu=1420))
    for answer in node.check(place):
        answer.done()
    place.run("ip", "link", "set", "eth0", "mtu", "1400")
    node.check(place)[1].fault()
