from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from cni import nft
from cni.errors import CniFault, Malformed
from cni.nft import Element
from cni.plugins import portmap
from cni.skel import Invocation, Request
from cni.types import Interface, IPConfig, Result

RESULT = Result(
    interfaces=(Interface(name="cni0"), Interface(name="eth0", sandbox="/n")),
    ips=(
        IPConfig(address=ipaddress.ip_interface("10.1.0.5/16"), interface=1),
        IPConfig(address=ipaddress.ip_interface("fd00::5/64"), interface=1),
        IPConfig(address=ipaddress.ip_interface("10.9.0.1/16"), interface=0),
    ),
)


def _request(mappings: Any, result: Result | None = RESULT, **config: Any) -> Request:
    document = {"name": "net", "cniVersion": "1.1.0", "runtimeConfig": {"portMappings": mappings}} | config
    return Request(
        invocation=Invocation(plugin="portmap", command="ADD", config=document),
        version="1.1.0",
        container_id="c1",
        netns="/n",
        ifname="eth0",
        args={},
        config=document,
        prev_result=result,
        runner=None,  # type: ignore[arg-type] # never delegates
    )


def _elements(mappings: Any, **config: Any) -> list[Element]:
    request = _request(mappings, **config)
    return portmap._elements(request, portmap.read(request), RESULT)


def test_element_reads_back_as_it_was_written() -> None:
    for jump, value in (("net-10.1.0.0/16", b""), ("", b"\x0a\x01\x00\x05")):
        element = Element(map="m", key=b"\x0a\x01\x00\x05", owner="net c1 eth0", jump=jump, value=value)
        (listed,) = nft._elements(element.encode("table"))
        assert (listed.key, listed.owner, listed.jump) == (element.key, element.owner, jump)


def test_owner_in_words_or_by_digest() -> None:
    assert nft.owner("net", "c1", "eth0") == "net c1 eth0"
    for parts in (("net", "c" * 200, "eth0"), ("net", "c1", 'e"h;0'), ("net", "c1", "e\\n")):
        name = nft.owner(*parts)
        assert name.startswith("digest ")
        assert len(name) <= 120
        assert name.replace(" ", "").isalnum()
    assert nft.owner("net", "c1", 'a"') != nft.owner("net", "c1", 'b"')


def test_stale_are_those_of_this_network_that_are_not_kept() -> None:
    stale = nft.stale("net", [("c1", "eth0"), ("c" * 200, "eth0")])
    assert stale(nft.owner("net", "c2", "eth0"))
    assert stale(nft.owner("net", "d" * 200, "eth0"))
    assert not stale(nft.owner("net", "c1", "eth0"))
    assert not stale(nft.owner("net", "c" * 200, "eth0"))
    assert not stale(nft.owner("network", "c2", "eth0"))
    assert not stale(nft.owner("other", "d" * 200, "eth0"))
    assert not stale("")


def test_chain_goes_with_the_last_that_jumps_to_it() -> None:
    def body(name: str, chain: str) -> bytes:
        return Element(map="m", key=name.encode(), owner=name, jump=chain).encode("t")

    bodies = [body("one", "net-a"), body("two", "net-b"), body("tri", "net-b")]
    removed, others = nft._pick(bodies, lambda owner: owner in {"one", "two"}, b"")
    assert others == 1
    assert list(nft._unused([("m", element) for element in removed], bodies)) == ["net-a"]


def test_pick_skips_what_cannot_hold_the_hint() -> None:
    bodies = [Element(map="m", key=b"k", owner=name, value=b"v").encode("t") for name in ("one", "two")]
    found, others = nft._pick(bodies, "one".__eq__, b"one")
    assert [element.owner for element in found] == ["one"]
    assert others == 1


def test_ports_of_both_families() -> None:
    elements = _elements([{"hostPort": 8080, "containerPort": 80}])
    assert [element.map for element in elements] == ["any4", "any6", "return4", "return6"]
    assert elements[0].key == bytes.fromhex("06000000 1f900000")
    assert elements[0].value == bytes.fromhex("0a010005 00500000")
    assert elements[2].key == bytes.fromhex("0a010005 06000000 00500000")
    assert elements[2].jump == "net-10.1.0.0/16"
    assert elements[3].jump == "net-fd00__/64"


@pytest.mark.parametrize(
    ("mapping", "maps"),
    [
        ({"hostIP": "0.0.0.0"}, ["any4"]),
        ({"hostIP": "::"}, ["any6"]),
        ({"hostIP": "192.0.2.1"}, ["host4"]),
        ({"hostIP": "2001:db8::1"}, ["host6"]),
        ({"hostIP": ""}, ["any4", "any6"]),
        ({"protocol": "UDP"}, ["any4", "any6"]),
        ({"protocol": "sctp"}, ["any4", "any6"]),
        ({"hostPort": 0}, []),
    ],
)
def test_where_a_mapping_goes(mapping: dict[str, Any], maps: list[str]) -> None:
    elements = _elements([{"hostPort": 8080, "containerPort": 80} | mapping], snat=False)
    assert [element.map for element in elements] == maps


def test_two_host_ports_of_one_container_port_return_once() -> None:
    elements = _elements([{"hostPort": port, "containerPort": 80, "hostIP": "0.0.0.0"} for port in (1, 2)])
    assert [element.map for element in elements] == ["any4", "any4", "return4"]


def test_masquerade_all() -> None:
    elements = _elements([{"hostPort": 1, "containerPort": 80, "hostIP": "0.0.0.0"}], masqAll=True)
    assert elements[-1].jump == "everything"


@pytest.mark.parametrize(
    ("mappings", "match"),
    [
        ([{"hostPort": 70000, "containerPort": 80}], "/runtimeConfig/portMappings/0/hostPort"),
        ([{"hostPort": -1, "containerPort": 80}], "/runtimeConfig/portMappings/0/hostPort"),
        ([{"hostPort": 1}], "/runtimeConfig/portMappings/0/containerPort"),
        ([{"hostPort": "1", "containerPort": 80}], "/runtimeConfig/portMappings/0/hostPort"),
        ([{"hostPort": 1, "containerPort": 80, "protocol": "icmp"}], "/runtimeConfig/portMappings/0/protocol"),
        ([{"hostPort": 1, "containerPort": 80, "hostIP": "host"}], "/runtimeConfig/portMappings/0/hostIP"),
        ({}, "/runtimeConfig/portMappings"),
    ],
)
def test_wrong_mappings(mappings: Any, match: str) -> None:
    with pytest.raises(Malformed, match=match):
        portmap.read(_request(mappings))


def test_what_portmap_cannot_do_is_refused() -> None:
    with pytest.raises(CniFault, match="/conditionsV4 is not served"):
        portmap.read(_request([], conditionsV4=["-d", "10.0.0.1"]))
    with pytest.raises(Malformed, match="portmap follows another plugin"):
        portmap.add(_request([{"hostPort": 1, "containerPort": 1}], None))


def test_no_ports_no_rules() -> None:
    assert portmap.add(_request([])) is RESULT
