"""CDI devices in a config.json, and the files they come from."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from shim.cdi.cache import Cdi
from shim.cdi.edits import apply
from shim.cdi.model import Edits, Hook, Mount, Node
from shim.errors import FailedPrecondition

if TYPE_CHECKING:
    from pathlib import Path


def spec(**linux) -> dict:
    return {
        "process": {"user": {"uid": 1000, "gid": 0, "additionalGids": [5]}, "env": ["A=0", "B=0"]},
        "mounts": [{"destination": "/proc", "type": "proc"}],
        "linux": {"namespaces": [{"type": "mount"}], **linux},
    }


def edited(*edits: Edits, config: dict | None = None) -> dict:
    config = config or spec()
    apply(config, edits)
    return config


def test_process_and_hooks() -> None:
    found = edited(
        Edits(env=("B=1", "C=2"), gids=(0, 7, 5, 7), hooks=(Hook(name="poststop", path="/h", timeout=1),)),
        Edits(intel_rdt={"closID": "x"}, net_devices={"eth1": "in"}, hooks=(Hook(name="poststop", path="/i", args=("i",)),)),
    )
    assert found["process"]["env"] == ["A=0", "B=1", "C=2"]
    assert found["process"]["user"]["additionalGids"] == [5, 7]
    assert found["hooks"] == {
        "poststop": [{"path": "/h", "args": [], "env": [], "timeout": 1}, {"path": "/i", "args": ["i"], "env": []}]
    }
    assert found["linux"]["intelRdt"] == {"closID": "x"}
    assert found["linux"]["netDevices"] == {"eth1": {"name": "in"}}


def test_a_node_is_completed_from_the_host() -> None:
    mode = os.stat("/dev/null").st_mode & 0o7777
    found = edited(Edits(nodes=(Node(path="/dev/x", host_path="/dev/null"),)))["linux"]
    assert found["devices"] == [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": mode, "uid": 1000}]
    assert found["resources"]["devices"] == [{"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}]


def test_a_complete_node_needs_no_host() -> None:
    node = Node(path="/dev/x", kind="b", major=8, minor=1, mode=0o600, permissions="r", uid=0, gid=9)
    found = edited(Edits(nodes=(node,)), config=spec(devices=[{"path": "/dev/x"}, {"path": "/dev/y"}]))["linux"]
    assert found["devices"] == [
        {"path": "/dev/y"},
        {"path": "/dev/x", "type": "b", "major": 8, "minor": 1, "fileMode": 0o600, "uid": 0, "gid": 9},
    ]
    assert found["resources"]["devices"][0]["access"] == "r"


def test_no_permissions_and_fifos() -> None:
    found = edited(Edits(nodes=(Node(path="/dev/null", permissions="none"), Node(path="/dev/p", kind="p"))))["linux"]
    assert [rule["access"] for rule in found["resources"]["devices"]] == [""]
    assert found["devices"][1] == {"path": "/dev/p", "type": "p", "major": 0, "minor": 0, "uid": 1000}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (Node(path="/dev/absent"), "/dev/absent cannot be looked at: No such file"),
        (Node(path="/dev/x", host_path="/dev/null", kind="b"), "/dev/null is not of type b on this node"),
        (Node(path="/etc/passwd"), "/etc/passwd is not of type b, c or p"),
    ],
)
def test_nodes_that_the_host_has_not(node: Node, message: str) -> None:
    with pytest.raises(FailedPrecondition, match=message):
        edited(Edits(nodes=(node,)))


def test_mounts() -> None:
    config = spec()
    config["mounts"].append({"destination": "/a/b", "type": "tmpfs"})
    mounts = (
        Mount(host_path="/h", container_path="/a/b", options=("ro", "bind")),
        Mount(host_path="/i", container_path="/a"),
        Mount(host_path="tmpfs", container_path="/t", kind="tmpfs"),
    )
    assert edited(Edits(mounts=mounts), config=config)["mounts"] == [
        {"destination": "/proc", "type": "proc"},
        {"destination": "/a", "source": "/i", "options": ["rbind"], "type": "bind"},
        {"destination": "/t", "source": "tmpfs", "options": [], "type": "tmpfs"},
        {"destination": "/a/b", "source": "/h", "options": ["ro", "bind"], "type": "bind"},
    ]


def test_binds_in_a_user_namespace_are_mapped() -> None:
    mounts = (
        Mount(host_path="/h", container_path="/a", options=("bind",)),
        Mount(host_path="t", container_path="/t", kind="tmpfs"),
    )
    found = edited(Edits(mounts=mounts), config=spec(namespaces=[{"type": "user"}]))["mounts"]
    assert [mount["options"] for mount in found[1:]] == [["bind", "idmap"], []]


def write(path: Path, *names: str, kind: str = "v.com/c", text: str = "", **fields) -> None:
    devices = [{"name": name, "containerEdits": {"env": [f"{name}={path.name}"]}} for name in names]
    path.parent.mkdir(exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(text or json.dumps({"cdiVersion": "1.0.0", "kind": kind, "devices": devices, **fields}))
    scratch.rename(path)


def injected(cdi: Cdi, *names: str) -> list[str]:
    config = spec()
    cdi.inject(config, names)
    return config["process"]["env"][2:]


def test_the_common_edits_of_a_file_come_once(tmp_path: Path) -> None:
    cdi = Cdi([str(tmp_path / "etc"), str(tmp_path / "run")])
    write(tmp_path / "etc" / "a.json", "x", "y", containerEdits={"env": ["COMMON=1"], "additionalGids": [3]})
    config = spec()
    cdi.inject(config, ["v.com/c=y", "v.com/c=x"])
    assert config["process"]["env"] == ["A=0", "B=0", "COMMON=1", "y=a.json", "x=a.json"]
    assert config["process"]["user"]["additionalGids"] == [5, 3]


def test_files_come_change_and_go(tmp_path: Path) -> None:
    cdi = Cdi([str(tmp_path / "etc"), str(tmp_path / "run")])
    with pytest.raises(FailedPrecondition, match=r"^unresolvable CDI devices v\.com/c=x, v\.com/c=y$"):
        injected(cdi, "v.com/c=x", "v.com/c=y")
    write(tmp_path / "etc" / "a.json", "x")
    write(tmp_path / "etc" / "ignored.txt", text="nonsense")
    assert injected(cdi, "v.com/c=x") == ["x=a.json"]
    write(tmp_path / "run" / "b.yaml", "x", "y")  # the later directory wins
    assert injected(cdi, "v.com/c=x", "v.com/c=y") == ["x=b.yaml", "y=b.yaml"]
    write(tmp_path / "run" / "b.yaml", "y")
    assert injected(cdi, "v.com/c=x", "v.com/c=y") == ["x=a.json", "y=b.yaml"]
    (tmp_path / "run" / "b.yaml").unlink()
    with pytest.raises(FailedPrecondition):
        injected(cdi, "v.com/c=y")


def test_two_files_of_one_directory_must_not_describe_the_same(tmp_path: Path) -> None:
    cdi = Cdi([str(tmp_path / "etc"), str(tmp_path / "run")])
    write(tmp_path / "etc" / "a.json", "x", "y")
    write(tmp_path / "etc" / "b.json", "x")
    with pytest.raises(FailedPrecondition, match=r"v.com/c=x; CDI device v.com/c=x is described by \S+a.json and by \S+b.json"):
        injected(cdi, "v.com/c=x")
    assert injected(cdi, "v.com/c=y") == ["y=a.json"]
    write(tmp_path / "run" / "c.json", "x")
    assert injected(cdi, "v.com/c=x") == ["x=c.json"]
    assert cdi.describe()["problems"] == []


def test_a_bad_file_hurts_nobody_else(tmp_path: Path) -> None:
    cdi = Cdi([str(tmp_path)])
    write(tmp_path / "bad.json", text="{")
    write(tmp_path / "good.json", "x")
    os.mkfifo(tmp_path / "fifo.json")
    assert injected(cdi, "v.com/c=x") == ["x=good.json"]
    with pytest.raises(FailedPrecondition, match=r"v.com/c=z; CDI file \S+bad.json is not JSON"):
        injected(cdi, "v.com/c=z")
    assert cdi.describe()["devices"] == {"v.com/c=x": f"{tmp_path}/good.json"}


def test_nothing_is_read_again_that_has_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cdi = Cdi([str(tmp_path)])
    write(tmp_path / "a.json", "x")
    injected(cdi, "v.com/c=x")
    monkeypatch.setattr("shim.cdi.cache.read_regular", lambda *_, **__: pytest.fail("read again"))
    assert injected(cdi, "v.com/c=x") == ["x=a.json"]
