from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from cni import wire
from cni.errors import CniFault, Code
from cni.types import DNS, Interface, IPConfig, Result, Route

FULL = Result(
    interfaces=(
        Interface(name="cni0", mac="00:11:22:33:44:55", mtu=1400),
        Interface(name="eth0", mac="99:88:77:66:55:44", sandbox="/run/netns/x", socket_path="/s", pci_id="8086:9a01"),
    ),
    ips=(
        IPConfig(address=ipaddress.ip_interface("10.1.0.5/16"), gateway=ipaddress.ip_address("10.1.0.1"), interface=1),
        IPConfig(address=ipaddress.ip_interface("fd00::5/64"), interface=1),
    ),
    routes=(
        Route(dst=ipaddress.ip_network("0.0.0.0/0"), mtu=1300, advmss=1260, priority=7, table=50, scope=0),
        Route(dst=ipaddress.ip_network("fd01::/64"), gw=ipaddress.ip_address("fd00::1")),
    ),
    dns=DNS(nameservers=("10.1.0.1",), domain="local", search=("a", "b"), options=("ndots:2",)),
)


def test_current_version_loses_nothing() -> None:
    assert wire.read_result(wire.write_result(FULL)) == FULL


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0"])
def test_older_versions_lose_what_they_cannot_say(version: str) -> None:
    value = wire.write_result(FULL, version)
    assert value["cniVersion"] == version
    assert wire.read_result(value) == replace(
        FULL,
        interfaces=tuple(replace(one, mtu=0, socket_path="", pci_id="") for one in FULL.interfaces),
        routes=tuple(Route(dst=one.dst, gw=one.gw) for one in FULL.routes),
    )


@pytest.mark.parametrize(("version", "said"), [("0.3.1", ["4", "6"]), ("0.4.0", ["4", "6"]), ("1.0.0", [None, None])])
def test_family_is_said_until_1_0(version: str, said: list[str | None]) -> None:
    assert [ip.get("version") for ip in wire.write_result(FULL, version)["ips"]] == said


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_first_format(version: str) -> None:
    value = wire.write_result(FULL, version)
    assert value == {
        "cniVersion": version,
        "ip4": {"ip": "10.1.0.5/16", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
        "ip6": {"ip": "fd00::5/64", "routes": [{"dst": "fd01::/64", "gw": "fd00::1"}]},
        "dns": {"nameservers": ["10.1.0.1"], "domain": "local", "search": ["a", "b"], "options": ["ndots:2"]},
    }
    read = wire.read_result(value)
    assert [str(ip.address) for ip in read.ips] == ["10.1.0.5/16", "fd00::5/64"]
    assert len(read.routes) == 2


def test_result_without_version_takes_that_of_the_configuration() -> None:
    assert wire.read_result({"ips": [{"address": "10.0.0.2/24"}]}, "1.0.0").ips
    assert not wire.read_result({"ips": [{"address": "10.0.0.2/24"}]}, "0.2.0").ips


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ([], "/"),
        ({"ips": {}}, "/ips"),
        ({"ips": [{"address": "10.0.0.256/24"}]}, "/ips/0/address"),
        ({"ips": [{"address": "10.0.0.1/24", "interface": "1"}]}, "/ips/0/interface"),
        ({"ips": [{"address": "10.0.0.1/24", "gateway": "x"}]}, "/ips/0/gateway"),
        ({"interfaces": [{"name": 3}]}, "/interfaces/0/name"),
        ({"interfaces": [{"name": "a", "mtu": True}]}, "/interfaces/0/mtu"),
        ({"routes": [{"dst": "0.0.0.0/0"}, {"dst": "nowhere"}]}, "/routes/1/dst"),
        ({"dns": {"nameservers": "10.0.0.1"}}, "/dns/nameservers"),
        ({"dns": []} | {"dns": ["x"]}, "/dns"),
        ({"cniVersion": "one"}, "version"),
    ],
)
def test_malformed_result_names_the_place(value: object, pointer: str) -> None:
    with pytest.raises(CniFault, match=pointer) as fault:
        wire.read_result(value, "1.0.0")
    assert fault.value.code in {Code.DECODING_FAILURE, Code.INCOMPATIBLE_VERSION}
