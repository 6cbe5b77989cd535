"""--systemd-cgroup and systemd's pods where systemd mounts v1's hierarchies, with v2 beside them or without."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runtime.apply.cgroup import detect
from shim.gen.runtime.v1 import api_pb2
from tests.support.wait import wait_for
from tests.system.oci_node import RUNTIMES, Oci
from tests.vm.inside.systemd import known, show, systemctl
from tests.vm.inside.test_scope import prepared, unit_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.vm

MEBIBYTE = 1 << 20
SLICES = "wtest.slice/wtest-boats.slice"
LIMITED = ("memory", "cpu", "cpuset", "pids", "devices", "freezer", "blkio")


@pytest.fixture(params=[runtime for runtime in RUNTIMES if runtime != "crun"])
def scoped(request: pytest.FixtureRequest, busybox_rootfs: Path) -> Iterator[Oci]:
    yield from prepared(request.param, busybox_rootfs)
    clear_slices()


def clear_slices() -> None:
    for one in detect().hierarchies:  # the slices' directories in hierarchies that systemd leaves alone; runc leaves them too
        for path in (Path(one.mount, SLICES), Path(one.mount, SLICES).parent):
            with suppress(FileNotFoundError):
                path.rmdir()


def directory(controller: str, node: Oci) -> Path:
    (mount,) = [one.mount for one in detect().hierarchies if controller in one.key.split(",")]
    return Path(mount, SLICES, unit_of(node))


def read(node: Oci, controller: str, file: str) -> str:
    return (directory(controller, node) / file).read_text().strip()


def test_the_machine_is_what_these_tests_take_for_granted() -> None:
    assert Path("/proc/1/comm").read_text() == "systemd\n"
    assert detect().kind in ("hybrid", "v1")


def test_the_life_of_a_scope(scoped: Oci) -> None:
    name = scoped.start("sleep", "1000")
    pid, unit = scoped.state(name)["pid"], unit_of(scoped)
    assert show(unit, "Slice", "ActiveState", "Delegate") == {
        "Slice": "wtest-boats.slice",
        "ActiveState": "active",
        "Delegate": "yes",
    }
    for controller in (*LIMITED, "name=systemd"):
        assert read(scoped, controller, "cgroup.procs").split() == [str(pid)], controller
    inside = scoped.ok("exec", name, "cat", "/proc/self/cgroup").splitlines()
    for controller in (*LIMITED, "name=systemd"):
        (path,) = [line.split(":")[2] for line in inside if controller in line.split(":")[1].split(",")]
        assert path == f"/{SLICES}/{unit}", controller
    scoped.ok("pause", name)
    scoped.wait_status(name, "paused")
    systemctl("daemon-reload")
    scoped.wait_status(name, "paused")
    scoped.ok("resume", name)
    scoped.ok("kill", name, "KILL")
    scoped.wait_status(name, "stopped")
    scoped.ok("delete", name)
    assert not known(unit)
    assert not [one.mount for one in detect().hierarchies if Path(one.mount, SLICES, unit).exists()]


def test_limits_are_properties_and_files(scoped: Oci) -> None:
    scoped.config["linux"]["resources"] = {
        "memory": {"limit": 64 * MEBIBYTE},
        "cpu": {"shares": 512, "quota": 500_000, "period": 1_000_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 30},
    }
    name = scoped.start("sleep", "1000")
    names = ("MemoryLimit", "CPUShares", "CPUQuotaPerSecUSec", "TasksMax")
    assert show(unit_of(scoped), *names) == {
        "MemoryLimit": str(64 * MEBIBYTE),
        "CPUShares": "512",
        "CPUQuotaPerSecUSec": "500ms",
        "TasksMax": "30",
    }
    assert read(scoped, "cpuset", "cpuset.cpus") == "0"
    scoped.ok("update", "--memory", "80M", "--pids-limit", "-1", "--cpu-period", "500000", name)
    assert show(unit_of(scoped), *names) == {
        "MemoryLimit": str(80 * MEBIBYTE),
        "CPUShares": "512",
        "CPUQuotaPerSecUSec": "1s",
        "TasksMax": "infinity",
    }
    systemctl("daemon-reload")
    assert read(scoped, "memory", "memory.limit_in_bytes") == str(80 * MEBIBYTE)
    assert read(scoped, "pids", "pids.max") == "max"
    assert (read(scoped, "cpu", "cpu.cfs_quota_us"), read(scoped, "cpu", "cpu.cfs_period_us")) == ("500000", "500000")
    assert read(scoped, "cpu", "cpu.shares") == "512"


def test_devices_stay_allowed_through_a_reload(scoped: Oci) -> None:
    scoped.config["linux"]["resources"] = {
        "devices": [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 7, "minor": 0, "access": "rw"},
        ]
    }
    numbers = {"/dev/vcs": 0, "/dev/vcsa": 128}
    for path in numbers:
        open(path, "rb").close()
    scoped.config["linux"]["devices"] = [
        {"path": path, "type": "c", "major": 7, "minor": minor, "fileMode": 0o666} for path, minor in numbers.items()
    ]
    name = scoped.start("sleep", "1000")
    for _ in range(2):
        scoped.ok("exec", name, "sh", "-c", "exec 3<>/dev/vcs && exec 4<>/dev/null")
        assert scoped.call("exec", name, "sh", "-c", "exec 3</dev/vcsa").returncode != 0
        systemctl("daemon-reload")


def test_a_user_s_systemd_has_nothing_to_delegate(busybox_rootfs: Path) -> None:
    """v1's hierarchies are root's: runc says so too."""
    for node in prepared("wherry-oci", busybox_rootfs):
        node.options += ["--rootless", "true"]
        done = node.run("true")
        assert done.returncode == 1
        assert "cgroup v2" in done.stderr or "bus" in done.stderr
        assert node.ok("list", "-q") == ""


@pytest.mark.parametrize("wherryd", [{"driver": "systemd"}], indirect=True)
def test_a_pod_is_one_scope(wherryd: Wherryd, pods: PodMaker) -> None:
    cri = wherryd.cri
    config = pods.pod(cgroup_parent=f"/{SLICES}")
    pod = cri.run_pod(config)
    limits = api_pb2.LinuxContainerConfig(
        resources=api_pb2.LinuxContainerResources(memory_limit_in_bytes=64 * MEBIBYTE, cpu_quota=50_000, cpu_period=100_000)
    )
    container = cri.create(pod, pods.container("busybox", ["sleep", "1000"], linux=limits), config)
    cri.start(container)
    unit = f"wherry-{pod}.scope"
    assert show(unit, "Slice", "Delegate", "ActiveState") == {
        "Slice": "wtest-boats.slice",
        "Delegate": "yes",
        "ActiveState": "active",
    }
    groups = {name: Path(one.mount, SLICES, unit, container) for one in detect().hierarchies for name in one.key.split(",")}
    (pid,) = (groups["memory"] / "cgroup.procs").read_text().split()
    assert (groups["memory"] / "memory.limit_in_bytes").read_text().strip() == str(64 * MEBIBYTE)
    systemctl("daemon-reload")
    assert (groups["cpu"] / "cpu.cfs_quota_us").read_text().strip() == "50000"
    assert cri.execute(container, "sh", "-c", "echo hello; exit 3").exit_code == 3
    assert os.path.exists(f"/proc/{pid}")
    stats = cri.runtime.ContainerStats(api_pb2.ContainerStatsRequest(container_id=container), timeout=30).stats
    assert stats.memory.usage_bytes.value > 0
    cri.remove_pod(pod)
    wait_for(lambda: not known(unit), "the scope to be cleared away")
    assert not [path for path in groups.values() if path.parent.exists()]
    systemctl("stop", "wtest-boats.slice")
    systemctl("stop", "wtest.slice")
    clear_slices()
