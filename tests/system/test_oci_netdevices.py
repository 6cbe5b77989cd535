"""linux.netDevices: a device of the host moves into the container with its name, addresses and MTU, or nothing starts."""

from __future__ import annotations

import secrets
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def device() -> Iterator[str]:
    """Give one end of a veth pair, with an address; the pair is gone afterwards."""
    name = f"w{secrets.token_hex(3)}"
    ip("link", "add", f"{name}p", "type", "veth", "peer", "name", name)
    try:
        ip("address", "add", "169.254.77.9/24", "dev", name)
        ip("link", "set", name, "mtu", "1432", "address", "02:00:00:00:00:09")
        yield name
    finally:
        subprocess.run(["ip", "link", "del", f"{name}p"], check=False, capture_output=True)


def test_a_device_moves_with_all_it_has(ours: Oci, device: str) -> None:
    ours.config["linux"]["netDevices"] = {device: {}}
    seen = ours.output("ip", "address", "show", device)
    for part in ("169.254.77.9/24", "mtu 1432", "02:00:00:00:00:09", ",UP"):
        assert part in seen


def test_it_may_get_another_name(ours: Oci, device: str) -> None:
    ours.config["linux"]["netDevices"] = {device: {"name": "data0"}}
    assert "169.254.77.9" in ours.output("ip", "address", "show", "data0")


def test_a_user_namespace_is_no_hindrance(ours: Oci, device: str) -> None:
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    ours.config["linux"]["namespaces"].append({"type": "user"})
    ours.config["linux"].update(uidMappings=mapping, gidMappings=mapping, netDevices={device: {}})
    assert "169.254.77.9" in ours.output("ip", "address", "show", device)


def test_a_name_that_is_taken_or_unknown_is_a_fault(ours: Oci, device: str) -> None:
    for host_name, name in ((device, "lo"), ("nosuch0", "data0")):
        ours.config["linux"]["netDevices"] = {host_name: {"name": name}}
        done = ours.run("true")
        assert done.returncode == 1
        assert f"move the network device {host_name}" in done.stderr


def test_without_a_network_namespace_there_is_nowhere_to_move(ours: Oci, device: str) -> None:
    kept = [one for one in ours.config["linux"]["namespaces"] if one["type"] != "network"]
    ours.config["linux"].update(namespaces=kept, netDevices={device: {}})
    done = ours.run("true")
    assert done.returncode == 1
    assert "/linux/netDevices" in done.stderr
    ip("link", "show", device)
