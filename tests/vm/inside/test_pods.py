"""Pods on pure cgroup v2, with both cgroup drivers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.wait import wait_for
from tests.vm.inside.systemd import CGROUPS, known, show, systemctl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.vm

MEBIBYTE = 1 << 20
SLICE = "wtest-burst-pod1.slice"
SLICES = "wtest.slice/wtest-burst.slice/wtest-burst-pod1.slice"
Resources = api_pb2.LinuxContainerResources


@pytest.fixture(autouse=True)
def slices() -> Iterator[None]:
    """Stop the slices afterwards, as kubelet does with those of a pod that is gone."""
    yield
    for name in (SLICE, "wtest-burst.slice", "wtest.slice"):
        systemctl("stop", name)


def text(path: Path) -> str:
    return path.read_text().strip()


def cgroup_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::/")


def monitor_of(wherryd: Wherryd, pod: str) -> int:
    return int(json.loads((wherryd.state / "pods" / pod / "monitor.json").read_text())["pid"])


def greedy(pods: PodMaker) -> api_pb2.ContainerConfig:
    """Make a container that takes all the memory it can get."""
    limits = api_pb2.LinuxContainerConfig(resources=Resources(memory_limit_in_bytes=16 * MEBIBYTE))
    return pods.container("busybox", ["sh", "-c", "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done"], name="greedy", linux=limits)


@pytest.mark.parametrize("wherryd", [{"driver": "systemd"}], indirect=True)
def test_a_pod_is_one_scope(wherryd: Wherryd, pods: PodMaker) -> None:
    cri = wherryd.cri
    asked = cri.runtime.RuntimeConfig(api_pb2.RuntimeConfigRequest(), timeout=20)
    assert asked.linux.cgroup_driver == api_pb2.SYSTEMD
    config = pods.pod(cgroup_parent=f"/{SLICES}")
    pod = cri.run_pod(config)
    unit = f"wherry-{pod}.scope"
    scope = CGROUPS / SLICES / unit
    assert show(unit, "Slice", "Delegate", "ActiveState") == {"Slice": SLICE, "Delegate": "yes", "ActiveState": "active"}
    monitor = monitor_of(wherryd, pod)
    assert cgroup_of(monitor) == f"{SLICES}/{unit}/monitor"
    limits = api_pb2.LinuxContainerConfig(
        resources=Resources(memory_limit_in_bytes=64 * MEBIBYTE, cpu_quota=50_000, cpu_period=100_000, cpuset_cpus="0")
    )
    container = cri.create(pod, pods.container("busybox", ["sleep", "1000"], linux=limits), config)
    cri.start(container)
    group = scope / container
    (pid,) = text(group / "cgroup.procs").split()
    assert (text(group / "memory.max"), text(group / "cpu.max")) == (str(64 * MEBIBYTE), "50000 100000")
    assert cri.execute(container, "sh", "-c", "echo hello; exit 3").exit_code == 3
    stats = cri.runtime.ContainerStats(api_pb2.ContainerStatsRequest(container_id=container), timeout=30).stats
    assert stats.memory.usage_bytes.value > 0
    assert stats.cpu.usage_core_nano_seconds.value > 0
    whole = cri.runtime.PodSandboxStats(api_pb2.PodSandboxStatsRequest(pod_sandbox_id=pod), timeout=30).stats.linux
    assert whole.memory.usage_bytes.value >= stats.memory.usage_bytes.value
    update = api_pb2.UpdateContainerResourcesRequest(
        container_id=container, linux=Resources(memory_limit_in_bytes=96 * MEBIBYTE)
    )
    cri.runtime.UpdateContainerResources(update, timeout=30)
    request = api_pb2.UpdatePodSandboxResourcesRequest(
        pod_sandbox_id=pod, resources=Resources(memory_limit_in_bytes=128 * MEBIBYTE)
    )
    cri.runtime.UpdatePodSandboxResources(request, timeout=30)
    assert show(unit, "MemoryMax")["MemoryMax"] == str(128 * MEBIBYTE)
    systemctl("daemon-reload")
    assert (text(group / "memory.max"), text(scope / "memory.max")) == (str(96 * MEBIBYTE), str(128 * MEBIBYTE))
    assert os.path.exists(f"/proc/{pid}")
    wherryd.cri.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod), timeout=60)
    assert not cgroup_of(monitor).startswith("wtest.slice")
    wait_for(lambda: not known(unit), "systemd to clear the empty scope away")
    assert not scope.exists()
    systemctl("stop", SLICE)
    wherryd.cri.remove_pod(pod)
    without_a_parent(wherryd, pods)  # a daemon takes half a minute to start here


def without_a_parent(wherryd: Wherryd, pods: PodMaker) -> None:
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, greedy(pods), config)
    wherryd.cri.start(container)
    unit = f"wherry-{pod}.scope"
    assert show(unit, "Slice")["Slice"] == "system.slice"
    status = wherryd.cri.wait_exit(container, seconds=60)
    assert (status.reason, status.exit_code) == ("OOMKilled", 137)
    wherryd.cri.remove_pod(pod)
    wait_for(lambda: not known(unit), "the scope to be cleared away")


def test_the_cgroupfs_driver(wherryd: Wherryd, pods: PodMaker) -> None:
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, pods.container("busybox", ["sleep", "1000"]), config)
    wherryd.cri.start(container)
    group = CGROUPS / wherryd.cgroup_parent.strip("/") / pod / container
    assert {"memory", "cpu", "io", "pids"} <= set(text(group / "cgroup.controllers").split())
    assert wherryd.cri.execute(container, "cat", "/proc/self/cgroup").stdout.startswith(b"0::/")
    doomed = wherryd.cri.create(pod, greedy(pods), config)
    wherryd.cri.start(doomed)
    assert wherryd.cri.wait_exit(doomed, seconds=60).reason == "OOMKilled"
    stats = wherryd.cri.runtime.ListContainerStats(api_pb2.ListContainerStatsRequest(), timeout=30).stats
    assert [one.attributes.id for one in stats if one.memory.usage_bytes.value]
    limits_of_every_kind(wherryd, pods, pod, config)
    wherryd.cri.remove_pod(pod)
    assert not group.exists()


def limits_of_every_kind(wherryd: Wherryd, pods: PodMaker, pod: str, config: api_pb2.PodSandboxConfig) -> None:
    """Set and change swap, huge pages, any file by its name, and those of the pod."""
    asked = Resources(
        memory_limit_in_bytes=64 * MEBIBYTE,
        memory_swap_limit_in_bytes=96 * MEBIBYTE,
        unified={"memory.high": str(48 * MEBIBYTE), "pids.max": "77", "memory.low": str(MEBIBYTE)},
        hugepage_limits=[api_pb2.HugepageLimit(page_size="2MB", limit=4 * MEBIBYTE)],
    )
    limited = pods.container("busybox", ["sleep", "1000"], name="limited", linux=api_pb2.LinuxContainerConfig(resources=asked))
    container = wherryd.cri.create(pod, limited, config)
    wherryd.cri.start(container)
    of_pod = CGROUPS / wherryd.cgroup_parent.strip("/") / pod
    group = of_pod / container

    def files(*names: str) -> list[str]:
        return [text(group / name) for name in names]

    names = ("memory.max", "memory.swap.max", "memory.high", "memory.low", "pids.max", "hugetlb.2MB.max")
    assert files(*names) == [str(one * MEBIBYTE) for one in (64, 32, 48, 1)] + ["77", str(4 * MEBIBYTE)]
    shown = wherryd.cri.status(container).resources.linux
    assert (shown.memory_swap_limit_in_bytes, shown.unified["pids.max"]) == (96 * MEBIBYTE, "77")
    change = Resources(
        memory_limit_in_bytes=80 * MEBIBYTE,
        memory_swap_limit_in_bytes=80 * MEBIBYTE,
        unified={"pids.max": "78"},
        hugepage_limits=[api_pb2.HugepageLimit(page_size="2MB", limit=2 * MEBIBYTE)],
    )
    wherryd.cri.runtime.UpdateContainerResources(
        api_pb2.UpdateContainerResourcesRequest(container_id=container, linux=change), timeout=30
    )
    assert files(*names) == [str(80 * MEBIBYTE), "0", str(48 * MEBIBYTE), str(MEBIBYTE), "78", str(2 * MEBIBYTE)]
    whole = Resources(memory_limit_in_bytes=200 * MEBIBYTE, cpu_quota=150_000, cpu_period=100_000, cpu_shares=512)
    wherryd.cri.runtime.UpdatePodSandboxResources(
        api_pb2.UpdatePodSandboxResourcesRequest(pod_sandbox_id=pod, resources=whole), timeout=30
    )
    assert (text(of_pod / "memory.max"), text(of_pod / "cpu.max")) == (str(200 * MEBIBYTE), "150000 100000")
    assert wherryd.cri.execute(container, "true").exit_code == 0
