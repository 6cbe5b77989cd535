"""host-local: addresses from the node's own ranges (https://www.cni.dev/plugins/current/ipam/host-local/)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import pytest

from conformance.cni.support.node import addresses

if TYPE_CHECKING:
    from pathlib import Path

    from conformance.cni.support.node import Node
    from conformance.cni.support.plugins import Answer

DOCUMENT = "https://www.cni.dev/plugins/current/ipam/host-local/"
pytestmark = pytest.mark.rule(DOCUMENT)


def ask(node: Node, container: str, command: str = "ADD", **ipam: Any) -> Answer:
    """Call the plugin for a container that needs no namespace."""
    config = node.config("host-local", ipam=node.ipam() | ipam)
    given = {"CNI_CONTAINERID": container, "CNI_NETNS": "/run/netns/none", "CNI_IFNAME": "eth0"}
    return node.plugins.call(command, config, environment=given)


def one(answer: Answer) -> dict[str, Any]:
    """Give the one address of a result."""
    (ip,) = cast("list[dict[str, Any]]", answer.result()["ips"])
    return ip


def test_addresses_differ(node: Node) -> None:
    """Every attachment gets an address of its own, from the subnet, and with the subnet's prefix length."""
    given = [one(ask(node, f"c{index}"))["address"] for index in range(5)]
    assert len(set(given)) == 5
    assert all(address.startswith("10.77.0.") and address.endswith("/24") for address in given)


def test_gateway_is_the_first_address(node: Node) -> None:
    """Where no gateway is named it is the subnet's first address, and nobody gets that one."""
    ips = [one(ask(node, f"c{index}")) for index in range(3)]
    assert {ip["gateway"] for ip in ips} == {"10.77.0.1"}
    assert "10.77.0.1/24" not in {ip["address"] for ip in ips}


def test_named_gateway(node: Node) -> None:
    """A gateway that is named is given, and to nobody."""
    ranges = [[{"subnet": "10.77.0.0/29", "gateway": "10.77.0.3"}]]
    ips = [one(ask(node, f"c{index}", ranges=ranges)) for index in range(5)]
    assert {ip["gateway"] for ip in ips} == {"10.77.0.3"}
    assert "10.77.0.3/29" not in {ip["address"] for ip in ips}


def test_start_and_end(node: Node) -> None:
    """Addresses come from between rangeStart and rangeEnd, both included, and then there are none."""
    ranges = [[{"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.20", "rangeEnd": "10.77.0.22"}]]
    given = {one(ask(node, f"c{index}", ranges=ranges))["address"] for index in range(3)}
    assert given == {"10.77.0.20/24", "10.77.0.21/24", "10.77.0.22/24"}
    ask(node, "c3", ranges=ranges).fault()


def test_older_form(node: Node) -> None:
    """A subnet may stand in the ipam object itself."""
    config: dict[str, Any] = {"ranges": [], "subnet": "10.78.0.0/24", "rangeStart": "10.78.0.10", "gateway": "10.78.0.254"}
    ip = one(ask(node, "c", **config))
    assert ip["address"] == "10.78.0.10/24"
    assert ip["gateway"] == "10.78.0.254"


def test_many_ranges_of_one_set(node: Node) -> None:
    """When the first range of a set is used up, the next one serves."""
    first = {"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.9", "rangeEnd": "10.77.0.9"}
    second = {"subnet": "10.78.0.0/24", "rangeStart": "10.78.0.9", "rangeEnd": "10.78.0.9"}
    given = {one(ask(node, f"c{index}", ranges=[[first, second]]))["address"] for index in range(2)}
    assert given == {"10.77.0.9/24", "10.78.0.9/24"}


def test_address_of_every_set(node: Node) -> None:
    """Two sets give two addresses, such as one of each family, in their order."""
    result = ask(node, "c", ranges=[[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd00:77::/64"}]]).result()
    first, second = result["ips"]
    assert first["address"].startswith("10.77.0.")
    assert second["address"].startswith("fd00:77::")
    assert second["address"].endswith("/64")


def test_none_when_one_set_is_used_up(node: Node) -> None:
    """An attachment gets all its addresses or none."""
    small = [{"subnet": "10.78.0.0/24", "rangeStart": "10.78.0.9", "rangeEnd": "10.78.0.9"}]
    ranges = [[{"subnet": "10.77.0.0/24"}], small]
    ask(node, "first", ranges=ranges).result()
    held = node.leases()
    ask(node, "second", ranges=ranges).fault()
    assert node.leases() == held


def test_delete_frees(node: Node) -> None:
    """What DEL frees can be given again."""
    ranges = [[{"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.9", "rangeEnd": "10.77.0.9"}]]
    ask(node, "first", ranges=ranges).result()
    ask(node, "second", ranges=ranges).fault()
    ask(node, "first", "DEL", ranges=ranges).done()
    assert not node.leases()
    assert one(ask(node, "second", ranges=ranges))["address"] == "10.77.0.9/24"


def test_delete_frees_only_its_own(node: Node) -> None:
    """DEL of one attachment leaves the others theirs."""
    one(ask(node, "c"))
    held = node.leases()
    ask(node, "other", "DEL").done()
    ask(node, "c2", "DEL").done()
    assert node.leases() == held


def test_freed_address_rests(node: Node) -> None:
    """An address that was freed a moment ago is not the next to be given: others may still speak to it."""
    first = one(ask(node, "first"))["address"]
    ask(node, "first", "DEL").done()
    assert one(ask(node, "second"))["address"] != first


def test_at_once(node: Node) -> None:
    """Attachments at the same time get different addresses."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda index: ask(node, f"c{index}"), range(24)))
    assert len({one(answer)["address"] for answer in answers}) == 24


def test_networks_are_apart(node: Node) -> None:
    """What one network has given, another one may give as well."""
    one(ask(node, "c"))
    first = node.config("host-local", ipam=node.ipam())
    given = {"CNI_CONTAINERID": "c", "CNI_NETNS": "/run/netns/none", "CNI_IFNAME": "eth0"}
    assert one(node.plugins.call("ADD", first | {"name": "other"}, environment=given))["address"].startswith("10.77.0.")


def test_twice_for_one_interface(node: Node) -> None:
    """An interface that holds an address gets no second one of the same range."""
    one(ask(node, "c"))
    ask(node, "c").fault()
    assert len(node.leases()) == 1


def test_two_interfaces_of_one_container(node: Node) -> None:
    """Two interfaces of one container are two attachments."""
    config = node.config("host-local", ipam=node.ipam())
    given = {"CNI_CONTAINERID": "c", "CNI_NETNS": "/run/netns/none"}
    ips = {
        one(node.plugins.call("ADD", config, environment=given | {"CNI_IFNAME": name}))["address"] for name in ("eth0", "eth1")
    }
    assert len(ips) == 2
    node.plugins.call("DEL", config, environment=given | {"CNI_IFNAME": "eth1"}).done()
    assert len(node.leases()) == 1


@pytest.mark.parametrize("way", ["CNI_ARGS", "args.cni.ips", "runtimeConfig.ips"])
def test_chosen_address(node: Node, way: str) -> None:
    """An address may be asked for; whoever asks second is refused."""
    config = node.config("host-local", ipam=node.ipam())
    given = {"CNI_NETNS": "/run/netns/none", "CNI_IFNAME": "eth0"}
    if way == "CNI_ARGS":
        given["CNI_ARGS"] = "IP=10.77.0.99"
    elif way == "args.cni.ips":
        config["args"] = {"cni": {"ips": ["10.77.0.99"]}}
    else:
        config["runtimeConfig"] = {"ips": ["10.77.0.99"]}
    assert one(node.plugins.call("ADD", config, environment=given | {"CNI_CONTAINERID": "a"}))["address"] == "10.77.0.99/24"
    node.plugins.call("ADD", config, environment=given | {"CNI_CONTAINERID": "b"}).fault()


@pytest.mark.parametrize("address", ["10.99.0.9", "10.77.0.1", "10.77.0.0", "10.77.0.255", "text"])
def test_address_that_cannot_be_had(node: Node, address: str) -> None:
    """An address outside of the ranges, the gateway's, the network's own and the broadcast's are not given."""
    config = node.config("host-local", ipam=node.ipam(), args={"cni": {"ips": [address]}})
    given = {"CNI_CONTAINERID": "c", "CNI_NETNS": "/run/netns/none", "CNI_IFNAME": "eth0"}
    node.plugins.call("ADD", config, environment=given).fault()
    node.plugins.call("DEL", config, environment=given)
    assert not node.leases()


def test_ranges_of_the_runtime(node: Node) -> None:
    """Ranges that come with the call are used as well."""
    config = node.config("host-local", ipam=node.ipam()) | {"runtimeConfig": {"ipRanges": [[{"subnet": "10.79.0.0/24"}]]}}
    given = {"CNI_CONTAINERID": "c", "CNI_NETNS": "/run/netns/none", "CNI_IFNAME": "eth0"}
    result = node.plugins.call("ADD", config, environment=given).result()
    assert sorted(address.rpartition(".")[0] for address in addresses(result)) == ["10.77.0", "10.79.0"]


def test_routes(node: Node) -> None:
    """Routes are handed on as they are."""
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "192.168.0.0/16", "gw": "10.77.0.5"}]
    assert ask(node, "c", routes=routes).result()["routes"] == routes


def test_resolv_conf(node: Node, tmp_path: Path) -> None:
    """The name servers and search domains come from the file that is named."""
    path = tmp_path / "resolv.conf"
    path.write_text(
        "# comment\ndomain example.org\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n"
        "search a.example b.example\noptions ndots:5\n"
    )
    dns = ask(node, "c", resolvConf=str(path)).result()["dns"]
    assert dns["nameservers"] == ["192.0.2.53", "2001:db8::53"]
    assert dns["search"] == ["a.example", "b.example"]
    assert dns["options"] == ["ndots:5"]
    assert dns["domain"] == "example.org"


def test_check(node: Node) -> None:
    """CHECK is content with what ADD did, and not when the lease is lost."""
    result = ask(node, "c").result()
    config = node.config("host-local", ipam=node.ipam(), prevResult=result)
    given = {"CNI_CONTAINERID": "c", "CNI_NETNS": "/run/netns/none", "CNI_IFNAME": "eth0"}
    node.plugins.call("CHECK", config, environment=given).done()
    for lease in node.folder.glob("leases/*/10.77.*"):
        lease.unlink()
    node.plugins.call("CHECK", config, environment=given).fault()


@pytest.mark.parametrize(
    "ranges",
    [
        [],
        [[]],
        [[{}]],
        [[{"subnet": "text"}]],
        [[{"subnet": "10.77.0.9/24"}]],
        [[{"subnet": "10.77.0.0/31"}]],
        [[{"subnet": "10.77.0.0/24", "rangeStart": "10.78.0.1"}]],
        [[{"subnet": "10.77.0.0/24", "rangeEnd": "10.78.0.1"}]],
        [[{"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.9", "rangeEnd": "10.77.0.8"}]],
        [[{"subnet": "10.77.0.0/24"}, {"subnet": "10.77.0.128/25"}]],
        [[{"subnet": "10.77.0.0/24"}], [{"subnet": "10.77.0.0/24"}]],
        [[{"subnet": "10.77.0.0/24"}, {"subnet": "fd00:77::/64"}]],
    ],
    ids=lambda ranges: str(ranges).replace("'", ""),
)
def test_ranges_that_cannot_be(node: Node, ranges: list[Any]) -> None:
    """No range, no subnet, one with host bits or too small, ends outside or the wrong way round, overlaps, mixed families."""
    ask(node, "c", ranges=ranges).fault()
    assert not node.leases()


@pytest.mark.rule("SPEC.md#gc-clean-up-any-stale-resources")
def test_gc(node: Node) -> None:
    """GC frees the addresses of attachments that are not valid any more, and no others."""
    if "1.1.0" not in node.plugins.spoken:
        pytest.skip("version: GC came with 1.1.0")
    kept = one(ask(node, "kept"))["address"].partition("/")[0]
    ask(node, "stale").result()
    valid = {"cni.dev/valid-attachments": [{"containerID": "kept", "ifname": "eth0"}]}
    node.plugins.call("GC", node.config("host-local", ipam=node.ipam()) | valid).done()
    assert node.leases() == {kept}
