from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from cni import conflist
from cni.client import Attachment, Client, kubernetes_args
from cni.errors import CniFault, Code, ConfigFault, PluginFault, PluginTimeout
from tests.unit.cni.fakes import Scripts

if TYPE_CHECKING:
    from pathlib import Path

    from cni.conflist import NetworkList

ANSWER = """echo '{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.%d/24"}]}'"""
FAIL = """echo '{"code":100,"msg":"no"}'; exit 1"""
A1 = Attachment(container_id="c1", netns="/run/netns/x", args={"K8S_POD_NAME": "p"})


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    found = Scripts(tmp_path)
    found.add("one", ANSWER % 1)
    found.add("two", ANSWER % 2)
    found.add("three", ANSWER % 3)
    return found


@pytest.fixture
def client(scripts: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(Client, "_loopback", lambda _self, _attachment: None)  # needs root
    return Client(str(tmp_path / "conf"), (str(scripts.bin),), str(tmp_path / "cache"), timeout=5)


def _network(**change: Any) -> NetworkList:
    plugins = [
        {"type": "one", "capabilities": {"mac": True}},
        {"type": "two", "capabilities": {"ips": True}},
        {"type": "three"},
    ]
    return conflist.parse({"cniVersion": "1.0.0", "name": "net", "plugins": plugins} | change)


def _cached(tmp_path: Path) -> list[str]:
    folder = tmp_path / "cache" / "results"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_add_chains_results(client: Client, scripts: Scripts, tmp_path: Path) -> None:
    result = client.add(_network(), A1)
    assert [str(ip.address) for ip in result.ips] == ["10.0.0.3/24"]
    assert scripts.calls() == [("one", "ADD"), ("two", "ADD"), ("three", "ADD")]
    given = [call["config"].get("prevResult", {}).get("ips") for call in scripts.details()]
    assert given == [None, [{"address": "10.0.0.1/24"}], [{"address": "10.0.0.2/24"}]]
    assert {call["args"] for call in scripts.details()} == {"IgnoreUnknown=1;K8S_POD_NAME=p"}
    assert all((call["config"]["name"], call["config"]["cniVersion"]) == ("net", "1.0.0") for call in scripts.details())
    assert _cached(tmp_path) == ["net-c1-eth0"]


def test_capabilities_go_to_those_that_declare_them(client: Client, scripts: Scripts) -> None:
    attachment = Attachment(container_id="c", netns="/n", capabilities={"mac": "m", "ips": ["i"], "bandwidth": {}})
    client.add(_network(), attachment)
    assert [call["config"].get("runtimeConfig") for call in scripts.details()] == [{"mac": "m"}, {"ips": ["i"]}, None]


def test_delete_is_reverse_and_gets_what_add_answered(client: Client, scripts: Scripts, tmp_path: Path) -> None:
    attachment = Attachment(container_id="c1", netns="/n", args={"A": "1"}, capabilities={"mac": "m"})
    client.add(_network(), attachment)
    scripts.log.unlink()
    client.delete(_network(plugins=[{"type": "one"}]), Attachment(container_id="c1"))
    assert scripts.calls() == [("three", "DEL"), ("two", "DEL"), ("one", "DEL")]
    details = scripts.details()
    assert all(call["config"]["prevResult"]["ips"] == [{"address": "10.0.0.3/24"}] for call in details)
    assert details[-1]["config"]["runtimeConfig"] == {"mac": "m"}
    assert details[0]["args"] == "IgnoreUnknown=1;A=1"
    assert _cached(tmp_path) == []


def test_delete_of_what_is_unknown_still_runs(client: Client, scripts: Scripts) -> None:
    client.delete(_network(), A1)
    client.delete(_network(), A1)
    assert scripts.calls() == [("three", "DEL"), ("two", "DEL"), ("one", "DEL")] * 2
    assert "prevResult" not in scripts.details()[0]["config"]


def test_delete_runs_all_and_keeps_the_cache_when_one_fails(client: Client, scripts: Scripts, tmp_path: Path) -> None:
    client.add(_network(), A1)
    scripts.add("three", FAIL)
    scripts.add("one", FAIL)
    scripts.log.unlink()
    with pytest.raises(PluginFault, match="three failed DEL") as fault:
        client.delete(_network(), A1)
    assert scripts.calls() == [("three", "DEL"), ("two", "DEL"), ("one", "DEL")]
    assert fault.value.__notes__ == ["plugin one failed DEL: no"]
    assert _cached(tmp_path) == ["net-c1-eth0"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (FAIL, PluginFault),
        ("echo garbage", PluginFault),
        ("kill -9 $$", PluginFault),
        ("[ $CNI_COMMAND = DEL ] || sleep 60", PluginTimeout),
    ],
)
def test_failed_add_is_undone(tmp_path: Path, scripts: Scripts, client: Client, body: str, kind: type[Exception]) -> None:
    scripts.add("two", body)
    client = Client(str(tmp_path / "conf"), (str(scripts.bin),), str(tmp_path / "cache"), timeout=1)
    begin = time.monotonic()
    with pytest.raises(kind, match="two failed ADD"):
        client.add(_network(), A1)
    assert time.monotonic() - begin < 5
    assert scripts.calls() == [("one", "ADD"), ("two", "ADD"), ("two", "DEL"), ("one", "DEL")]
    assert _cached(tmp_path) == []


def test_a_missing_plugin_is_told_before_any_is_run(scripts: Scripts, client: Client) -> None:
    (scripts.bin / "three").unlink()
    with pytest.raises(CniFault, match="'three' is neither bundled nor found") as fault:
        client.add(_network(), A1)
    assert scripts.calls() == []
    assert not hasattr(fault.value, "__notes__")


def test_failed_undo_is_noted(scripts: Scripts, client: Client) -> None:
    scripts.add("one", f'[ "$CNI_COMMAND" = ADD ] || {{ {FAIL}; }}; {ANSWER % 1}')
    scripts.add("two", FAIL)
    with pytest.raises(PluginFault, match="two failed ADD: no") as fault:
        client.add(_network(), A1)
    assert fault.value.__notes__ == [
        "while undoing: plugin two failed DEL: no",
        "while undoing: plugin one failed DEL: no",
    ]


def test_full_disk_is_undone(scripts: Scripts, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("cni.cache.Cache.save", full)
    with pytest.raises(OSError, match="space"):
        client.add(_network(), A1)
    assert scripts.calls()[3:] == [("three", "DEL"), ("two", "DEL"), ("one", "DEL")]


def test_check(client: Client, scripts: Scripts) -> None:
    with pytest.raises(CniFault, match="c1/eth0 is not known to network net") as fault:
        client.check(_network(), A1)
    assert fault.value.code == Code.UNKNOWN_CONTAINER
    client.add(_network(), A1)
    scripts.log.unlink()
    client.check(_network(), A1)
    assert scripts.calls() == [("one", "CHECK"), ("two", "CHECK"), ("three", "CHECK")]
    scripts.add("two", FAIL)
    with pytest.raises(PluginFault, match="two failed CHECK"):
        client.check(_network(), A1)


@pytest.mark.parametrize("change", [{"disableCheck": True}, {"cniVersion": "0.3.1"}])
def test_check_that_is_off_or_unknown(client: Client, scripts: Scripts, change: dict[str, Any]) -> None:
    client.check(_network(**change), A1)
    assert scripts.calls() == []


def test_gc_deletes_what_is_stale_then_asks_every_plugin(client: Client, scripts: Scripts, tmp_path: Path) -> None:
    network = _network(cniVersion="1.1.0")
    for name in ("c1", "c2"):
        client.add(network, Attachment(container_id=name, netns="/n"))
    scripts.log.unlink()
    client.gc(network, [("c2", "eth0")])
    assert scripts.calls() == [(name, "DEL") for name in ("three", "two", "one")] + [
        (name, "GC") for name in ("one", "two", "three")
    ]
    assert scripts.details()[-1]["config"]["cni.dev/valid-attachments"] == [{"containerID": "c2", "ifname": "eth0"}]
    assert _cached(tmp_path) == ["net-c2-eth0"]


def test_gc_goes_on_after_a_failure(client: Client, scripts: Scripts) -> None:
    scripts.add("one", FAIL)
    with pytest.raises(PluginFault, match="one failed GC"):
        client.gc(_network(cniVersion="1.1.0"), [])
    assert scripts.calls() == [("one", "GC"), ("two", "GC"), ("three", "GC")]


@pytest.mark.parametrize("change", [{"disableGC": True, "cniVersion": "1.1.0"}, {}])
def test_gc_that_is_off_or_unknown(client: Client, scripts: Scripts, change: dict[str, Any]) -> None:
    client.gc(_network(**change), [])
    assert scripts.calls() == []


def test_status(client: Client, scripts: Scripts) -> None:
    client.status(_network(cniVersion="1.1.0"))
    assert scripts.calls() == [("one", "STATUS"), ("two", "STATUS"), ("three", "STATUS")]
    scripts.add("two", """echo '{"code":50,"msg":"not yet"}'; exit 1""")
    with pytest.raises(PluginFault, match="not yet") as fault:
        client.status(_network(cniVersion="1.1.0"))
    assert fault.value.code == Code.PLUGIN_NOT_AVAILABLE


def test_status_of_a_missing_plugin(client: Client) -> None:
    for plugins in ([{"type": "four"}], [{"type": "one", "ipam": {"type": "four"}}]):
        with pytest.raises(CniFault, match="'four' is neither") as fault:
            client.status(_network(plugins=plugins))
        assert fault.value.code == Code.PLUGIN_NOT_AVAILABLE


def test_newest_version_that_all_speak(client: Client, scripts: Scripts) -> None:
    client.add(_network(cniVersions=["0.4.0", "1.0.0", "1.1.0", "9.9.9"]), A1)
    assert {call["config"]["cniVersion"] for call in scripts.details()} == {"1.1.0"}
    old = scripts.bin / "two"
    old.write_text(old.read_text().replace(',"1.1.0"', ""))
    scripts.log.unlink()
    fresh = Client("", (str(scripts.bin),), str(scripts.bin.parent / "cache"))
    fresh.add(_network(cniVersions=["0.4.0", "1.0.0", "1.1.0"]), A1)
    assert {call["config"]["cniVersion"] for call in scripts.details()} == {"1.0.0"}


@pytest.mark.parametrize(
    "change",
    [
        {"container_id": ""},
        {"container_id": "../x"},
        {"ifname": ""},
        {"ifname": "a/b"},
        {"ifname": "a b"},
        {"ifname": "a" * 16},
        {"netns": ""},
        {"args": {"A": "1;B=2"}},
        {"args": {"A=B": "1"}},
        {"args": {"A": "\0"}},
    ],
)
def test_what_cannot_be_said_is_refused_before_anything_runs(client: Client, scripts: Scripts, change: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"container_id": "c1", "netns": "/n", "ifname": "eth0"} | change
    with pytest.raises(CniFault) as fault:
        client.add(_network(), Attachment(**fields))
    assert fault.value.code == Code.INVALID_ENVIRONMENT
    assert scripts.calls() == []


def test_load(client: Client, tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match="no network configuration"):
        client.load()
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "1.conf").write_text('{"name": "n", "type": "one"}')
    assert client.load().name == "n"


def test_default_network() -> None:
    network = Client.default_network()
    assert [plugin.type for plugin in network.plugins] == ["bridge", "portmap"]
    assert network.plugins[1].capabilities == {"portMappings"}
    with pytest.raises(ConfigFault, match=r"subnet '10.0.0.1/16' of the default network"):
        Client.default_network(["10.0.0.1/16"])


def test_kubernetes_args() -> None:
    args = kubernetes_args(namespace="ns", name="pod", uid="u", container_id="c")
    assert list(args) == ["K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID"]
