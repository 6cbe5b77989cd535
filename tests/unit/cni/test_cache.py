from __future__ import annotations

import ipaddress
import json
import os
from typing import TYPE_CHECKING

import pytest

from cni import conflist
from cni.cache import Cache, Entry
from cni.types import IPConfig, Result

if TYPE_CHECKING:
    from pathlib import Path

NETWORK = conflist.parse({"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge", "mtu": 9}]})
RESULT = Result(ips=(IPConfig(address=ipaddress.ip_interface("10.0.0.2/24")),))


def _entry(container_id: str = "c1") -> Entry:
    return Entry(
        container_id=container_id,
        ifname="eth0",
        network="net",
        netns="/run/netns/x",
        args=(("K", "v"),),
        capabilities={"portMappings": [{"hostPort": 1}]},
        config=NETWORK,
        result=RESULT,
    )


def test_round_trip(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path))
    cache.save(_entry(), "1.0.0")
    assert cache.load("net", "c1", "eth0") == _entry()
    cache.forget("net", "c1", "eth0")
    cache.forget("net", "c1", "eth0")
    assert cache.load("net", "c1", "eth0") is None
    assert os.listdir(tmp_path / "results") == []


def test_the_file_is_what_other_tools_read(tmp_path: Path) -> None:
    Cache(str(tmp_path)).save(_entry(), "1.0.0")
    document = json.loads((tmp_path / "results" / "net-c1-eth0").read_text())
    assert document["kind"] == "cniCacheV1"
    assert document["containerId"] == "c1"
    assert document["result"]["ips"][0]["address"] == "10.0.0.2/24"
    assert document["cniArgs"] == [["K", "v"]]


def test_entries_of_one_network(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path))
    assert list(cache.entries("net")) == []
    for name in ("c1", "c2"):
        cache.save(_entry(name), "1.0.0")
    (tmp_path / "results" / "net-broken-eth0").write_text("{")
    (tmp_path / "results" / "net-x-c9-eth0").write_text(json.dumps({"kind": "cniCacheV1", "networkName": "net-x"}))
    assert [entry.container_id for entry in cache.entries("net")] == ["c1", "c2"]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"kind":"other"}',
        b'{"kind":"cniCacheV1","cniArgs":[1]}',
        b'{"kind":"cniCacheV1","result":3}',
    ],
)
def test_damage_counts_as_absence_and_can_be_forgotten(tmp_path: Path, damage: bytes) -> None:
    cache = Cache(str(tmp_path))
    cache.save(_entry(), "1.0.0")
    path = tmp_path / "results" / "net-c1-eth0"
    path.write_bytes(damage)
    assert cache.load("net", "c1", "eth0") is None
    cache.forget("net", "c1", "eth0")
    assert not path.exists()


def test_damaged_configuration_leaves_the_result(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path))
    cache.save(_entry(), "1.0.0")
    path = tmp_path / "results" / "net-c1-eth0"
    document = json.loads(path.read_text()) | {"config": "!!!"}
    path.write_text(json.dumps(document))
    entry = cache.load("net", "c1", "eth0")
    assert entry is not None
    assert entry.config is None
    assert entry.result == RESULT


def test_failed_write_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(str(tmp_path))
    cache.save(_entry(), "1.0.0")

    def full(*_: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="space"):
        cache.save(_entry(), "1.0.0")
    assert os.listdir(tmp_path / "results") == ["net-c1-eth0"]
