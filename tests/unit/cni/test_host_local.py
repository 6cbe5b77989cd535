from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import CniFault, Code
from tests.unit.cni.fakes import call

if TYPE_CHECKING:
    from pathlib import Path


def _config(data: Path, ipam: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    settings = {"type": "host-local", "dataDir": str(data)} | (ipam or {"ranges": [[{"subnet": "10.1.0.0/24"}]]})
    return {"cniVersion": "1.1.0", "name": "net", "ipam": settings} | top


def _add(config: dict[str, Any], container_id: str = "c1", **fields: str) -> list[str]:
    answer = call("host-local", "ADD", config, container_id=container_id, netns="/n", ifname="eth0", **fields)
    assert answer is not None
    return [ip["address"] for ip in answer["ips"]]


def _do(command: str, config: dict[str, Any], container_id: str = "c1") -> None:
    call("host-local", command, config, container_id=container_id, netns="/n", ifname="eth0")


def _files(data: Path) -> list[str]:
    return sorted(os.listdir(data / "net"))


def test_layout_is_that_of_the_standard_plugin(tmp_path: Path) -> None:
    assert _add(_config(tmp_path)) == ["10.1.0.2/24"]
    assert _files(tmp_path) == ["10.1.0.2", "last_reserved_ip.0", "lock"]
    assert (tmp_path / "net" / "10.1.0.2").read_bytes() == b"c1\r\neth0"
    assert (tmp_path / "net" / "last_reserved_ip.0").read_text() == "10.1.0.2"


def test_addresses_rest_before_reuse(tmp_path: Path) -> None:
    config = _config(tmp_path, {"ranges": [[{"subnet": "10.1.0.0/29"}]]})
    assert _add(config, "c1") == ["10.1.0.2/29"]
    _do("DEL", config, "c1")
    assert [_add(config, f"d{n}")[0] for n in range(5)] == [f"10.1.0.{n}/29" for n in (3, 4, 5, 6, 2)]


def test_both_families_with_gateways_and_routes(tmp_path: Path) -> None:
    ranges = [[{"subnet": "10.1.0.0/24", "gateway": "10.1.0.254"}], [{"subnet": "fd00::/64"}]]
    config = _config(tmp_path, {"ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]})
    answer = call("host-local", "ADD", config, container_id="c", netns="/n", ifname="eth0")
    assert answer == {
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.1.0.1/24", "gateway": "10.1.0.254"}, {"address": "fd00::2/64", "gateway": "fd00::1"}],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {},
    }
    assert {"10.1.0.1", "fd00::2"} < set(_files(tmp_path))


def test_set_of_two_ranges(tmp_path: Path) -> None:
    ranges = [
        [
            {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.11"},
            {"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.10", "rangeEnd": "10.2.0.10"},
        ]
    ]
    config = _config(tmp_path, {"ranges": ranges})
    assert [_add(config, f"c{n}")[0] for n in range(3)] == ["10.1.0.10/24", "10.1.0.11/24", "10.2.0.10/24"]
    _do("DEL", config, "c1")
    assert _add(config, "c9") == ["10.1.0.11/24"]


def test_old_form(tmp_path: Path) -> None:
    config = _config(tmp_path, {"subnet": "10.3.0.0/24", "rangeStart": "10.3.0.7", "gateway": "10.3.0.7"})
    assert _add(config) == ["10.3.0.8/24"]


def test_exhaustion_says_what_and_leaves_nothing(tmp_path: Path) -> None:
    ranges = [[{"subnet": "fd00::/64"}], [{"subnet": "10.1.0.0/30"}]]
    config = _config(tmp_path, {"ranges": ranges})
    assert _add(config, "c1") == ["fd00::2/64", "10.1.0.2/30"]
    before = _files(tmp_path)
    with pytest.raises(CniFault, match=r"no address is left in 10.1.0.1-10.1.0.2 of network net") as fault:
        _add(config, "c2")
    assert fault.value.code == 100
    assert _files(tmp_path) == before


def test_same_attachment_twice(tmp_path: Path) -> None:
    _add(_config(tmp_path))
    with pytest.raises(CniFault, match=r"c1/eth0 holds 10.1.0.2 in network net already: delete it first"):
        _add(_config(tmp_path))
    assert "10.1.0.2" in _files(tmp_path)


def test_delete_is_idempotent_and_makes_nothing(tmp_path: Path) -> None:
    _do("DEL", _config(tmp_path / "absent"))
    assert not (tmp_path / "absent").exists()
    config = _config(tmp_path)
    _add(config)
    _do("DEL", config, "other")
    assert "10.1.0.2" in _files(tmp_path)
    _do("DEL", config)
    _do("DEL", config)
    assert _files(tmp_path) == ["last_reserved_ip.0", "lock"]


def test_delete_with_a_result_that_is_wrong(tmp_path: Path) -> None:
    config = _config(tmp_path)
    _add(config, "c1")
    _add(config, "c2")
    _do("DEL", config | {"prevResult": {"ips": [{"address": "10.1.0.3/24"}]}}, "c1")
    assert "10.1.0.3" in _files(tmp_path)
    assert "10.1.0.2" not in _files(tmp_path)


@pytest.mark.parametrize("how", ["capability", "args", "environment"])
def test_address_on_request(tmp_path: Path, how: str) -> None:
    extra: dict[str, Any] = {
        "capability": {"runtimeConfig": {"ips": ["10.1.0.77/24"]}},
        "args": {"args": {"cni": {"ips": ["10.1.0.77"]}}},
        "environment": {},
    }[how]
    fields = {"args": "IgnoreUnknown=1;IP=10.1.0.77"} if how == "environment" else {}
    assert _add(_config(tmp_path, **extra), **fields) == ["10.1.0.77/24"]
    with pytest.raises(CniFault, match=r"requested address 10.1.0.77 is in use"):
        _add(_config(tmp_path, **extra), "c2", **fields)


@pytest.mark.parametrize(
    ("address", "match"), [("10.9.0.1", "in no range"), ("10.1.0.1", "is the gateway"), ("x", "not an ip address")]
)
def test_address_that_cannot_be_given(tmp_path: Path, address: str, match: str) -> None:
    with pytest.raises(CniFault, match=match):
        _add(_config(tmp_path, runtimeConfig={"ips": [address]}))
    assert not (tmp_path / "net").exists() or "c1" not in "".join(_files(tmp_path))


def test_ranges_by_capability_come_first(tmp_path: Path) -> None:
    config = _config(tmp_path, runtimeConfig={"ipRanges": [[{"subnet": "10.8.0.0/24"}]]})
    assert _add(config) == ["10.8.0.2/24", "10.1.0.2/24"]


def test_dns_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "resolv").write_text("# x\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch a b\ndomain d\noptions ndots:2\n")
    config = _config(tmp_path, {"ranges": [[{"subnet": "10.1.0.0/24"}]], "resolvConf": str(tmp_path / "resolv")})
    answer = call("host-local", "ADD", config, container_id="c", netns="/n", ifname="eth0")
    assert answer is not None
    assert answer["dns"] == {
        "nameservers": ["10.0.0.1", "10.0.0.2"],
        "domain": "d",
        "search": ["a", "b"],
        "options": ["ndots:2"],
    }


def test_check(tmp_path: Path) -> None:
    config = _config(tmp_path)
    with pytest.raises(CniFault, match="c1/eth0 holds no address"):
        _do("CHECK", config)
    _add(config)
    _do("CHECK", config | {"prevResult": {"ips": [{"address": "10.1.0.2/24"}]}})
    with pytest.raises(CniFault, match="not in its result"):
        _do("CHECK", config | {"prevResult": {"ips": [{"address": "10.1.0.9/24"}]}})


def test_gc(tmp_path: Path) -> None:
    config = _config(tmp_path)
    for name in ("c1", "c2", "c3"):
        _add(config, name)
    call("host-local", "GC", config | {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]})
    assert _files(tmp_path) == ["10.1.0.3", "last_reserved_ip.0", "lock"]


def test_status(tmp_path: Path) -> None:
    call("host-local", "STATUS", _config(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(CniFault, match="file"):
        call("host-local", "STATUS", _config(tmp_path / "file"))


@pytest.mark.parametrize(
    ("ipam", "pointer"),
    [
        ({"ranges": []}, "/ipam/ranges"),
        ({"ranges": {}}, "/ipam/ranges"),
        ({"ranges": [{"subnet": "10.0.0.0/24"}]}, "/ipam/ranges"),
        ({"ranges": [[]]}, "/ipam/ranges/0"),
        ({"ranges": [[{"subnet": "10.0.0.0/33"}]]}, "/ipam/ranges/0/0/subnet"),
        ({"ranges": [[{"subnet": "10.0.0.0/31"}]]}, "/ipam/ranges/0/0/subnet"),
        ({"ranges": [[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.1.1"}]]}, "/ipam/ranges/0/0/rangeStart"),
        ({"ranges": [[{"subnet": "10.0.0.0/24", "rangeEnd": "fd00::1"}]]}, "/ipam/ranges/0/0/rangeEnd"),
        (
            {"ranges": [[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.8"}]]},
            "/ipam/ranges/0/0/rangeEnd",
        ),
        ({"ranges": [[{"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}]]}, "/ipam/ranges/0"),
        ({"ranges": [[{"subnet": "10.0.0.0/16"}], [{"subnet": "10.0.3.0/24"}]]}, "/ipam/ranges"),
        ({"ranges": [[{"subnet": "10.0.0.0/24"}]], "routes": [{"dst": "x"}]}, "/ipam/routes/0/dst"),
    ],
)
def test_wrong_configuration_names_the_place(tmp_path: Path, ipam: dict[str, Any], pointer: str) -> None:
    with pytest.raises(CniFault, match=f"configuration {pointer}: ") as fault:
        _add(_config(tmp_path, ipam))
    assert fault.value.code == Code.INVALID_CONFIG
    assert os.listdir(tmp_path) == []


def _race(data: str, number: int, results: Any) -> None:
    from pathlib import Path

    results.put([_add(_config(Path(data)), f"p{number}-{n}")[0] for n in range(20)])


def test_concurrent_processes_get_different_addresses(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_race, args=(str(tmp_path), n, results)) for n in range(4)]
    for worker in workers:
        worker.start()
    given = [address for _ in workers for address in results.get(timeout=60)]
    for worker in workers:
        worker.join()
    results.close()
    assert len(set(given)) == len(given) == 80


def test_full_disk_leaves_no_address_without_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("cni.plugins.leases.Leases.set_last", full)
    with pytest.raises(CniFault, match="no space left"):
        _add(_config(tmp_path))
    assert _files(tmp_path) == ["lock"]
