"""A routed pair a pod, bundled and Debian's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cni import conflist
from tests.system.cni_node import NetworkError, Node, in_child, open_node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.system


@pytest.fixture(params=["bundled", "debian"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with open_node(tmp_path, request.param) as made:
        document = made.network.to_json()
        document["plugins"][0] = {"type": "ptp", "ipMasq": True, "ipam": document["plugins"][0]["ipam"]}
        made.network = conflist.parse(document)
        yield made


def test_pods_and_host_reach_each_other(node: Node) -> None:
    one, two = node.pod(), node.pod()
    node.add(one)
    result = node.add(two, [{"hostPort": 18080, "containerPort": 80, "protocol": "tcp", "hostIP": "0.0.0.0"}])
    node.serve(two, 80, "two")
    for ip in result.ips:
        assert node.answers(str(ip.address.ip), 80).startswith("two to ")
        assert node.answers(str(ip.address.ip), 80, pod=one).startswith("two to ")
    assert node.answers("127.0.0.1", 18080).startswith("two to ")
    assert [(one.name, bool(one.sandbox)) for one in result.interfaces][1] == ("eth0", True)
    if node.kind != "debian":  # whose portmap cannot check IPv6
        node.check(two)
    host = result.interfaces[0].name
    assert os.path.exists(f"/sys/class/net/{host}")
    node.delete(one)
    node.delete(two)
    node.delete(two)
    assert node.left() == {}
    assert not os.path.exists(f"/sys/class/net/{host}")


def test_check_finds_a_lost_route(node: Node) -> None:
    pod = node.pod()
    node.add(pod)
    node.check(pod)
    node.ip("route", "del", "default", pod=pod)
    with pytest.raises(NetworkError, match="ptp failed CHECK"):
        node.check(pod)
    node.delete(pod)


def test_delete_without_namespace(node: Node) -> None:
    if node.kind == "debian":
        pytest.skip("Debian's plugin leaves its masquerading rules then")
    pod = node.pod()
    node.add(pod)
    node.remove_pod(pod)
    node.delete(pod, netns="")
    assert node.left() == {}


def test_gc_without_cache(node: Node) -> None:
    if node.kind == "debian":
        pytest.skip("Debian's plugins know no GC")
    keep, stale = node.pod(), node.pod()
    node.add(keep)
    host = node.add(stale).interfaces[0].name
    for file in (node.folder / "cache" / "results").iterdir():
        if stale in file.name:
            file.unlink()
    in_child(lambda: node.client.gc(node.network, [(keep, "eth0")]))
    assert not os.path.exists(f"/sys/class/net/{host}")
    node.check(keep)
    node.delete(keep)
