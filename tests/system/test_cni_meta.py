"""Plugins that follow another one: tuning, bandwidth, firewall. Bundled and Debian's."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from cni import conflist
from tests.support.tools import find_tool
from tests.system.cni_node import NetworkError, Node, in_child, open_node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.system


@pytest.fixture(params=["bundled", "debian"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with open_node(tmp_path, request.param) as made:
        yield made


def follow(node: Node, **settings: Any) -> None:
    """Let the bridge be followed by one plugin alone."""
    document = node.network.to_json()
    document["plugins"] = [document["plugins"][0], settings]
    node.network = conflist.parse(document)


def tc(*words: str) -> str:
    return subprocess.run([find_tool("tc"), *words], check=True, capture_output=True, text=True).stdout


def test_tuning(node: Node, tmp_path: Path) -> None:
    follow(
        node,
        type="tuning",
        sysctl={"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "321"},
        mac="02:11:22:33:44:55",
        mtu=1400,
        promisc=True,
        dataDir=str(tmp_path / "tuning"),
    )
    pod = node.pod()
    result = node.add(pod)
    assert [one.mac for one in result.interfaces if one.sandbox] == ["02:11:22:33:44:55"]
    link = node.ip("link", "show", "eth0", pod=pod)
    assert "PROMISC" in link
    assert "mtu 1400" in link
    assert "02:11:22:33:44:55" in link
    for name, value in (("ipv4/conf/eth0/arp_filter", "1"), ("core/somaxconn", "321")):
        command = [find_tool("ip"), "netns", "exec", pod, "cat", f"/proc/sys/net/{name}"]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == value
    if node.kind == "bundled":  # Debian's looks for a setting called IFNAME then
        node.check(pod)
        node.ip("link", "set", "eth0", "mtu", "1300", pod=pod)
        with pytest.raises(NetworkError, match="tuning failed CHECK"):
            node.check(pod)
    node.delete(pod)
    assert node.left() == {}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "of the host": ({"sysctl": {"kernel.core_pattern": "x"}}, r"net\."),
    "out of the folder": ({"sysctl": {"net/../../kernel/core_pattern": "x"}}, r"net\."),
    "no such setting": ({"sysctl": {"net.ipv4.nothing": "1"}}, "nothing"),
    "no hardware address": ({"mac": "02:11"}, "hardware address"),
    "an mtu below none": ({"mtu": -1}, "mtu"),
}


@pytest.mark.parametrize(("settings", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_tuning_refuses(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with open_node(tmp_path, "bundled") as node:
        follow(node, type="tuning", dataDir=str(tmp_path / "tuning"), **settings)
        pod = node.pod()
        with pytest.raises(NetworkError, match=words):
            node.add(pod)
        assert node.left() == {}


def test_bandwidth(node: Node) -> None:
    follow(node, type="bandwidth", ingressRate=8_000_000, ingressBurst=800_000, egressRate=16_000_000, egressBurst=800_000)
    pod = node.pod()
    before = set(os.listdir("/sys/class/net"))
    result = node.add(pod)
    made = set(os.listdir("/sys/class/net")) - before
    (ifb,) = (name for name in made if name.startswith("bwp"))
    assert ifb in {one.name for one in result.interfaces}
    (port,) = (one.name for one in result.interfaces if one.name in made and one.name not in {ifb, node.bridge})
    assert "rate 8Mbit" in tc("qdisc", "show", "dev", port)
    assert "rate 16Mbit" in tc("qdisc", "show", "dev", ifb)
    assert "mirred" in tc("filter", "show", "dev", port, "parent", "ffff:")
    node.check(pod)
    address = next(str(ip.address.ip) for ip in result.ips if ip.address.version == 4)
    node.serve(pod, 80, "pod")
    assert node.answers(address, 80).startswith("pod to ")
    assert seconds_to_send(pod, address) > 0.5  # a megabyte at a megabyte a second, less the burst
    if node.kind == "bundled":  # Debian's does not miss it
        tc("qdisc", "del", "dev", ifb, "root")
        with pytest.raises(NetworkError, match="bandwidth failed CHECK"):
            node.check(pod)
    node.delete(pod)
    node.delete(pod)
    assert node.left() == {}
    assert not os.path.exists(f"/sys/class/net/{ifb}")


READER = """\
import socket
listener = socket.create_server(("", 999))
print("ready", flush=True)
connection, _ = listener.accept()
count = 0
while data := connection.recv(65536):
    count += len(data)
print(count)
"""


def seconds_to_send(pod: str, address: str) -> float:
    """Send a megabyte to a pod over TCP and give how long its reader needed."""
    command = [find_tool("ip"), "netns", "exec", pod, sys.executable, "-c", READER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        started = time.monotonic()
        with socket.create_connection((address, 999)) as connection:
            connection.sendall(bytes(1_000_000))
        assert reader.stdout.read() == "1000000\n"
    return time.monotonic() - started


def test_bandwidth_of_an_attachment(node: Node) -> None:
    follow(node, type="bandwidth", capabilities={"bandwidth": True})
    plain, limited = node.pod(), node.pod()
    before = set(os.listdir("/sys/class/net"))
    node.add(plain)
    assert not any(name.startswith("bwp") for name in set(os.listdir("/sys/class/net")) - before)
    limits = {"bandwidth": {"egressRate": 10_000_000_000 * 8, "egressBurst": 8_000_000}}
    in_child(lambda: node.client.add(node.network, node.attachment(limited, capabilities=limits)))
    (ifb,) = (name for name in set(os.listdir("/sys/class/net")) - before if name.startswith("bwp"))
    assert "rate 80Gbit" in tc("qdisc", "show", "dev", ifb)
    if node.kind == "bundled":
        in_child(lambda: node.client.check(node.network, node.attachment(limited, capabilities=limits)))
        in_child(lambda: node.client.gc(node.network, [(plain, "eth0")]))
        assert not os.path.exists(f"/sys/class/net/{ifb}")
    in_child(lambda: node.client.delete(node.network, node.attachment(limited, capabilities=limits)))
    node.delete(plain)


def test_bandwidth_that_cannot_be(tmp_path: Path) -> None:
    with open_node(tmp_path, "bundled") as node:
        for settings, words in (({"ingressRate": 1000}, "ingressBurst"), ({"egressBurst": 1000}, "egressRate")):
            follow(node, type="bandwidth", **settings)
            with pytest.raises(NetworkError, match=words):
                node.add(node.pod())
            assert node.left() == {}


def test_firewall_between_bridges(tmp_path: Path) -> None:
    """Debian's needs iptables' own table; what is the same is who reaches whom."""
    with open_node(tmp_path, "bundled") as node:
        document = node.network.to_json()
        document["plugins"] = [document["plugins"][0], {"type": "firewall", "ingressPolicy": "same-bridge"}]
        closed = conflist.parse(document)
        stranger, server, neighbour = node.pod(), node.pod(), node.pod()
        for pod in (server, neighbour):
            result = node.add(pod, network=closed)
        del result
        with contextlib.closing(Node(tmp_path / "other", "bundled", ("10.232.0.0/24",))) as other:
            other.add(stranger)
            node.serve(server, 80, "server")
            result = node.add(node.pod(), network=closed)
            node.serve(stranger, 80, "stranger")
            target = next(str(ip.address.ip) for ip in in_child(lambda: result).ips if ip.address.version == 4)
            first = re.sub(r"\d+$", lambda found: str(int(found[0]) - 2), target)
            assert node.answers(first, 80).startswith("server to ")  # the host
            assert node.answers(first, 80, pod=neighbour).startswith("server to ")
            assert node.ask(first, 80, pod=stranger) == ""
            assert node.ask("10.232.0.2", 80, pod=server).startswith("stranger to ")
            other.delete(stranger)
        node.network = closed
        node.check(server)
        for pod in list(node.pods):
            node.delete(pod)
        ruleset = subprocess.run([find_tool("nft"), "list", "tables"], check=True, capture_output=True, text=True).stdout
        assert "wherry-firewall" not in ruleset
