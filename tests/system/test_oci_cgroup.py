"""Real cgroups: made, joined, limited, frozen, killed and removed on whatever layout this machine has."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runtime.apply.cgroup import Cgroup, detect, for_container, from_paths
from runtime.errors import CgroupFault, KernelFault
from runtime.spec.resources import Cpu, DeviceRule, HugepageLimit, Memory, Resources
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.oci_node import Oci

pytestmark = [pytest.mark.system, pytest.mark.vm]

MEBIBYTE = 1 << 20


@pytest.fixture
def group() -> Iterator[Cgroup]:
    """Give a cgroup two levels below the root, which is gone afterwards."""
    parent = f"/wherry-test-{secrets.token_hex(4)}"
    made = for_container(f"{parent}/box", "box")
    above = from_paths(tuple((key, os.path.dirname(directory)) for key, directory in made.paths))
    made.create()
    try:
        yield made
    finally:
        made.kill_all()
        made.remove()
        above.remove()


@pytest.fixture
def sleeper(group: Cgroup) -> Iterator[subprocess.Popen[bytes]]:
    """Give a process inside the cgroup."""
    with subprocess.Popen(["sleep", "100"]) as process:
        group.join(process.pid)
        try:
            yield process
        finally:
            group.thaw()
            process.kill()


def value(group: Cgroup, controller: str, v1: str, v2: str) -> str:
    """Read a file of the version the controller is in."""
    directory = group.directory(controller)
    path = f"{directory}/{v1}" if directory else f"{group.directory('')}/{v2}"
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def test_join_puts_a_process_into_every_hierarchy(group: Cgroup, sleeper: subprocess.Popen[bytes]) -> None:
    assert group.pids() == [sleeper.pid]
    with open(f"/proc/{sleeper.pid}/cgroup", encoding="ascii") as file:
        paths = [line.strip().split(":", 2)[2] for line in file]
    assert [path for path in paths if not path.endswith("/box")] == []


def test_limits_are_enforced_as_written(group: Cgroup, sleeper: subprocess.Popen[bytes]) -> None:
    assert sleeper.poll() is None
    memory, cpu = Memory(limit=50 * MEBIBYTE), Cpu(shares=1024, quota=50_000, period=100_000, cpus="0", mems="0")
    group.apply(Resources(memory=memory, cpu=cpu, pids_limit=50))
    assert value(group, "memory", "memory.limit_in_bytes", "memory.max") == str(50 * MEBIBYTE)
    assert value(group, "pids", "pids.max", "pids.max") == "50"
    assert value(group, "cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
    assert value(group, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"


def test_memory_and_swap_move_together_up_and_down(group: Cgroup) -> None:
    for size in (50, 200, 20):
        group.apply(Resources(memory=Memory(limit=size * MEBIBYTE, swap=2 * size * MEBIBYTE)))
        assert value(group, "memory", "memory.limit_in_bytes", "memory.max") == str(size * MEBIBYTE)


def test_impossible_value_names_the_file(group: Cgroup) -> None:
    with pytest.raises(CgroupFault, match=r"cpuset\.cpus"):
        group.apply(Resources(cpu=Cpu(cpus="9999")))


def test_limit_on_a_missing_controller_is_an_error(group: Cgroup) -> None:
    known = {name for hierarchy in group.layout.hierarchies for name in hierarchy.controllers}
    if "memory" not in known or group.layout.kind == "v2":
        pytest.skip("this layout misses no controller that can be asked for")
    with pytest.raises(KernelFault, match="no cgroup v2 controller memory"):
        group.apply(Resources(unified=(("memory.high", "1"),)))


def test_hugetlb_of_a_hybrid_layout_is_handed_down(group: Cgroup) -> None:
    unified = next((one for one in detect().hierarchies if one.version == 2), None)
    if (
        unified is None
        or "hugetlb" not in unified.controllers
        or not os.path.isdir("/sys/kernel/mm/hugepages/hugepages-2048kB")
    ):
        pytest.skip("no hugetlb controller in a v2 hierarchy here")
    switch = f"{unified.mount}/cgroup.subtree_control"
    with open(switch, encoding="ascii") as file:
        was_on = "hugetlb" in file.read()
    group.apply(Resources(hugepage_limits=(HugepageLimit(page_size="2MB", limit=4 * MEBIBYTE),)))
    assert value(group, "nosuch", "", "hugetlb.2MB.max") == str(4 * MEBIBYTE)
    group.remove()
    if not was_on:
        os.rmdir(os.path.dirname(str(group.directory(""))))
        with open(switch, "w", encoding="ascii") as file:
            file.write("-hugetlb")


def test_freeze_and_thaw(group: Cgroup, sleeper: subprocess.Popen[bytes]) -> None:
    assert sleeper.poll() is None
    group.freeze()
    assert group.frozen()
    group.thaw()
    assert not group.frozen()


@pytest.mark.parametrize("frozen", [False, True])
def test_kill_all_ends_a_family_that_keeps_forking(group: Cgroup, frozen: bool) -> None:
    script = "while :; do sleep 100 & sleep 0.01; done"
    with subprocess.Popen(["sh", "-c", f"read go; {script}"], stdin=subprocess.PIPE) as family:
        assert family.stdin is not None
        group.join(family.pid)
        family.stdin.write(b"\n")
        family.stdin.flush()
        wait_for(lambda: len(group.pids()) > 5, "the family to grow")
        if frozen:
            group.freeze()
        group.kill_all()
        assert family.wait(5) == -signal.SIGKILL
        assert group.pids() == []


def test_another_signal_reaches_everybody_and_waits_for_nobody(group: Cgroup, sleeper: subprocess.Popen[bytes]) -> None:
    group.kill_all(signal.SIGTERM)
    assert sleeper.wait(5) == -signal.SIGTERM


def test_remove_takes_what_the_container_made_below(group: Cgroup) -> None:
    for _, directory in group.paths:
        os.makedirs(f"{directory}/a/b")
    group.remove()
    assert not group.exists()
    group.remove()


def test_remove_names_who_is_still_inside(group: Cgroup, sleeper: subprocess.Popen[bytes]) -> None:
    with pytest.raises(CgroupFault, match=str(sleeper.pid)):
        group.remove(timeout=0.1)


def test_sub_cgroup(group: Cgroup) -> None:
    with pytest.raises(CgroupFault, match="no such file or directory"):
        group.sub("work")
    for key, directory in group.paths:
        if key in ("pids", "freezer", ""):
            os.mkdir(f"{directory}/work")
    sub = group.sub("work" if len(group.paths) == 1 else "pids,freezer:work")
    with subprocess.Popen(["sleep", "100"]) as process:
        sub.join(process.pid)
        assert group.pids() == [process.pid]
        group.kill_all()


def test_undo_leaves_what_was_there_before() -> None:
    parent = f"/wherry-test-{secrets.token_hex(4)}"
    outer = for_container(parent, "x")
    outer.create()
    inner = for_container(f"{parent}/a/b", "x")
    inner.create()
    inner.undo()
    assert not inner.exists()
    assert outer.exists()
    outer.remove()


def test_processes_killed_for_memory_are_counted(group: Cgroup) -> None:
    group.apply(Resources(memory=Memory(limit=8 * MEBIBYTE, swap=8 * MEBIBYTE)))
    script = "import sys; sys.stdin.read(); b'x' * (200 << 20)"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as greedy:
        assert greedy.stdin is not None
        group.join(greedy.pid)
        greedy.stdin.close()
        assert greedy.wait(30) == -signal.SIGKILL
    assert group.oom_count() >= 1


def can_open(group: Cgroup, path: str) -> bool:
    """Tell whether a process inside the cgroup may open a device."""
    command = ["sh", "-c", f"read go; exec head -c 1 {path}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        group.join(process.pid)
        process.stdin.close()
        return process.wait(10) == 0


@pytest.mark.parametrize("version", [1, 2])
def test_devices(group: Cgroup, version: int) -> None:
    """Version 2 is tried wherever a v2 hierarchy is mounted: its program judges in a hybrid layout too."""
    keys = [key for key, _ in group.paths if (key == "devices" if version == 1 else key == "")]
    if not keys:
        pytest.skip(f"no device cgroup of version {version} here")
    part = from_paths(tuple((key, directory) for key, directory in group.paths if key in keys))
    part.apply_devices((DeviceRule(allow=False), DeviceRule(allow=True, type="c", major=1, minor=3, access="w")))
    assert can_open(part, "/dev/zero")
    assert not can_open(part, "/dev/kmsg" if os.path.exists("/dev/kmsg") else "/dev/mem")


@pytest.mark.skipif(not os.path.isdir("/sys/fs/cgroup/cpu"), reason="v2 has no real-time groups")
def test_real_time(ours: Oci) -> None:
    """The period is written; a share of real time that the group above does not have to give is refused by the file's name."""
    ours.config["linux"]["resources"] = {"cpu": {"realtimePeriod": 200000}}
    name = ours.start("sleep", "100")
    (folder,) = Path("/sys/fs/cgroup/cpu").rglob(name)
    assert (folder / "cpu.rt_period_us").read_text() == "200000\n"
    ours.config["linux"]["resources"] = {"cpu": {"realtimePeriod": 200000, "realtimeRuntime": 190000}}
    before = Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").read_text()
    done = ours.run("true")
    if int(before) * 200 < 190000 * 1000:
        assert (done.returncode, "cpu.rt_runtime_us" in done.stderr) == (1, True), done.stderr


@pytest.mark.skipif(not os.path.isdir("/sys/fs/cgroup/blkio"), reason="v2 has no leaf weights")
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"leafWeight": 100}, "blkio.leaf_weight"),
        ({"weightDevice": [{"major": 4095, "minor": 0, "weight": 100}]}, "weight_device"),
        ({"weightDevice": [{"major": 4095, "minor": 0, "leafWeight": 100}]}, "blkio.leaf_weight_device"),
    ],
    ids=["leafWeight", "weightDevice", "weightDevice.leafWeight"],
)
def test_weights_of_what_is_not_there(ours: Oci, asked: dict[str, Any], said: str) -> None:
    """Leaf weights went with the CFQ scheduler, and a device has a weight only when it exists: each is named, as with runc."""
    ours.config["linux"]["resources"] = {"blockIO": asked}
    done = ours.run("true")
    assert (done.returncode, done.stderr.count("level=error")) == (1, 1)
    assert said in done.stderr
