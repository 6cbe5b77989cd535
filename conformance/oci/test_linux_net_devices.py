"""Network devices of the host that are moved into the container."""

from __future__ import annotations

import os
import secrets
import subprocess
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support import host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config-linux.md#network-devices")


@pytest.fixture
def link() -> Iterator[str]:
    """Make a network device on the host."""
    host.need(host.has_capability("CAP_NET_ADMIN"), "CAP_NET_ADMIN")
    name = f"j{secrets.token_hex(4)}"
    done = subprocess.run(
        ["ip", "link", "add", name, "type", "veth", "peer", "name", f"p{name}"], check=False, capture_output=True
    )
    host.need(done.returncode == 0, "no virtual ethernet devices (ip link add type veth)")
    yield name
    subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)
    subprocess.run(["ip", "link", "del", f"p{name}"], check=False, capture_output=True)


def ip(*words: str) -> None:
    """Run ip(8) on the host."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


def test_net_device(case: Case, link: str) -> None:
    """A device of the host is moved into the container and is up."""
    case.linux["netDevices"] = {link: {}}
    said = case.shell(f"ip link show {link}")
    assert "UP" in said.split("<")[1].split(">")[0]
    assert not os.path.exists(f"/sys/class/net/{link}")


def test_net_device_renamed(case: Case, link: str) -> None:
    """It may have another name inside."""
    case.linux["netDevices"] = {link: {"name": "wave0"}}
    assert sorted(case.shell("ls /sys/class/net").split()) == ["lo", "wave0"]


def test_net_device_template(case: Case, link: str) -> None:
    """A name with %d is completed by the kernel."""
    case.linux["netDevices"] = {link: {"name": "wave%d"}}
    assert "wave0" in case.shell("ls /sys/class/net").split()


def test_net_device_keeps_addresses(case: Case, link: str) -> None:
    """Its global addresses, hardware address and MTU come with it."""
    ip("addr", "add", "10.213.7.5/24", "dev", link)
    ip("addr", "add", "fd00:7::5/64", "dev", link)
    ip("link", "set", link, "address", "02:00:00:00:07:05", "mtu", "1444")
    case.linux["netDevices"] = {link: {"name": "wave0"}}
    said = case.shell("ip addr show wave0")
    assert "10.213.7.5/24" in said
    assert "fd00:7::5/64" in said
    assert "02:00:00:00:07:05" in said
    assert "mtu 1444" in said


def test_net_device_absent(case: Case) -> None:
    """A device that does not exist is an error."""
    case.linux["netDevices"] = {"no-such-dev": {}}
    case.refused("true")


def test_net_device_name_in_use(case: Case, link: str) -> None:
    """A name that the container has already is an error, and the device stays the host's."""
    case.linux["netDevices"] = {link: {"name": "lo"}}
    case.refused("true")
    assert os.path.exists(f"/sys/class/net/{link}")


def test_net_device_without_namespace(case: Case, link: str) -> None:
    """Without a network namespace there is nowhere to move a device to: it is an error."""
    case.drop_namespace("network")
    case.linux["netDevices"] = {link: {}}
    case.refused("true")
