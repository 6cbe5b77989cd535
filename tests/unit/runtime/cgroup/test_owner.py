"""Who a cgroup is given to, and which of its files: the pure part and a folder in a cgroup's place."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from runtime.apply.cgroup import Cgroup, owner
from runtime.errors import CgroupFault
from runtime.plan.cgroup import Hierarchy, Layout
from runtime.plan.launch import plan_launch
from runtime.request import CreateRequest
from runtime.spec.parse import parse_spec

if TYPE_CHECKING:
    from pathlib import Path

V2 = Hierarchy(key="", mount="/sys/fs/cgroup", controllers=("memory",), own="/")
V1 = Hierarchy(key="pids", mount="/sys/fs/cgroup/pids", controllers=("pids",), own="/")


def gives(options: list[str], *, namespaces: list[dict[str, str]], **mount: str) -> bool:
    shown = {"destination": "/sys/fs/cgroup/", "type": "cgroup", "source": "cgroup", "options": options} | mount
    document = {
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}},
        "mounts": [shown],
        "linux": {"namespaces": [{"type": "mount"}, *namespaces]},
    }
    spec = parse_spec(document)
    return plan_launch(spec, CreateRequest(container_id="c", bundle="/b", state_root="/s")).gives_cgroup()


def test_only_a_cgroup_that_is_shown_for_writing_is_given():
    own = [{"type": "cgroup"}]
    assert gives([], namespaces=own)
    assert gives(["ro", "rw"], namespaces=own)
    assert not gives(["ro"], namespaces=own)
    assert not gives([], namespaces=[])
    assert not gives([], namespaces=[{"type": "cgroup", "path": "/proc/1/ns/cgroup"}])
    assert not gives([], namespaces=own, destination="/cgroup")
    assert not gives([], namespaces=own, source="mine")


@pytest.fixture
def chowned(monkeypatch):
    """Note whom which file would be given to."""
    given = {}

    def chown(path, uid, gid):
        if not os.path.exists(path):
            raise FileNotFoundError(path)
        given[os.path.basename(path)] = (uid, gid)

    monkeypatch.setattr(owner.os, "chown", chown)
    return given


def make(folder: Path, *hierarchies: Hierarchy, spares: bool = False) -> Cgroup:
    (folder / "cgroup.procs").touch()
    (folder / "memory.max").touch()
    return Cgroup((("", str(folder)),), Layout(hierarchies=hierarchies), spares=spares)


@pytest.mark.parametrize("listed", ["cgroup.procs\ncgroup.threads\n", None])
def test_the_files_that_the_kernel_lists_are_given(tmp_path, chowned, monkeypatch, listed):
    delegate = tmp_path / "delegate"
    if listed:
        delegate.write_text(listed)
    monkeypatch.setattr(owner, "DELEGATE", str(delegate))
    owner.give(make(tmp_path, V2), os.getpid(), 7)
    assert chowned == {tmp_path.name: (7, -1), "cgroup.procs": (7, -1)}


def test_v1_beside_it_is_not_safe(tmp_path, chowned):
    owner.give(make(tmp_path, V1, V2), os.getpid(), 7)
    assert chowned == {}


def test_an_id_without_a_name_outside_owns_nothing(tmp_path, chowned):
    owner.give(make(tmp_path, V2), os.getpid(), (1 << 32) - 1)
    assert chowned == {}


def test_an_init_that_has_ended_is_told_of_elsewhere(tmp_path, chowned):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    owner.give(make(tmp_path, V2), process.pid, 0)
    assert chowned == {}


def test_who_may_not(tmp_path, monkeypatch):
    def refuse(path, *_ids):
        raise PermissionError(1, "Operation not permitted", path)

    monkeypatch.setattr(owner.os, "chown", refuse)
    owner.give(make(tmp_path, V2, spares=True), os.getpid(), 7)
    with pytest.raises(CgroupFault, match="give the cgroup to the container's user"):
        owner.give(make(tmp_path, V2), os.getpid(), 7)
