"""Limits that change: what the kernel then enforces, what the CRI then shows, and after a restart still."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.tools import find_tool

if TYPE_CHECKING:
    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

MEBI = 1 << 20
Resources = api_pb2.LinuxContainerResources
ROOT = Path("/sys/fs/cgroup")


def limits(path: str) -> tuple[int, int]:
    """Give the memory limit and the quota in microseconds that a cgroup enforces; -1 for none."""
    if (ROOT / "cgroup.controllers").exists():
        memory, quota = (
            (ROOT / path.strip("/") / "memory.max").read_text(),
            (ROOT / path.strip("/") / "cpu.max").read_text().split()[0],
        )
        return tuple(-1 if word.strip() == "max" else int(word) for word in (memory, quota))  # type: ignore[return-value]  # two
    memory_limit = int((ROOT / "memory" / path.strip("/") / "memory.limit_in_bytes").read_text())
    return -1 if memory_limit > 1 << 62 else memory_limit, int(
        (ROOT / "cpu" / path.strip("/") / "cpu.cfs_quota_us").read_text()
    )


def start(daemon: Wherryd, maker: PodMaker, handler: str = "") -> tuple[str, str, str]:
    """Run a pod with one container; give the ids and the container's cgroup."""
    config = maker.pod()
    pod = daemon.cri.run_pod(config, handler)
    container = daemon.cri.create(pod, maker.container("busybox", ["sleep", "1000"]), config)
    daemon.cri.start(container)
    return pod, container, f"{daemon.cgroup_parent}/{pod}/{container}"


def update(daemon: Wherryd, container: str, **resources: int) -> None:
    request = api_pb2.UpdateContainerResourcesRequest(
        container_id=container, linux=Resources(**resources), annotations={"a": "b"}
    )
    daemon.cri.runtime.UpdateContainerResources(request, timeout=20)


def test_a_container_gets_other_limits(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container, cgroup = start(wherryd, pods)
    assert limits(cgroup) == (-1, -1)
    update(wherryd, container, memory_limit_in_bytes=64 * MEBI)
    update(wherryd, container, cpu_quota=30_000, cpu_period=100_000)
    assert limits(cgroup) == (64 * MEBI, 30_000)
    update(wherryd, container, memory_limit_in_bytes=128 * MEBI, cpu_quota=-1)
    assert limits(cgroup) == (128 * MEBI, -1)
    shown = wherryd.cri.status(container).resources.linux
    assert (shown.memory_limit_in_bytes, shown.cpu_quota, shown.cpu_period) == (128 * MEBI, -1, 100_000)
    spec = wherryd.cri.info(container)["runtimeSpec"]
    assert spec["linux"]["resources"]["memory"]["limit"] == 128 * MEBI
    assert spec["annotations"]["a"] == "b"
    wherryd.kill()
    wherryd.start()
    assert wherryd.cri.status(container).resources.linux.memory_limit_in_bytes == 128 * MEBI


def test_a_refusal_changes_nothing(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container, cgroup = start(wherryd, pods)
    update(wherryd, container, memory_limit_in_bytes=64 * MEBI, cpu_quota=30_000)
    for bad in ({"cpu_shares": -5}, {"cpu_quota": 40_000, "cpuset_cpus": "4090"}):
        with pytest.raises(grpc.RpcError):
            update(wherryd, container, **bad)  # type: ignore[arg-type]  # one of the values is a string
    assert limits(cgroup) == (64 * MEBI, 30_000)
    assert wherryd.cri.status(container).resources.linux.cpu_quota == 30_000
    wherryd.cri.stop(container)
    with pytest.raises(grpc.RpcError) as caught:
        update(wherryd, container, cpu_quota=40_000)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_a_container_that_was_not_started_yet(wherryd: Wherryd, pods: PodMaker) -> None:
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, pods.container("busybox", ["sleep", "1000"]), config)
    update(wherryd, container, memory_limit_in_bytes=64 * MEBI)
    wherryd.cri.start(container)
    assert limits(f"{wherryd.cgroup_parent}/{pod}/{container}")[0] == 64 * MEBI


@pytest.mark.parametrize("wherryd", [{"extra": f'\n[runtime.handlers.runc]\npath = "{find_tool("runc")}"\n'}], indirect=True)
def test_another_runtime_is_told(wherryd: Wherryd, pods: PodMaker) -> None:
    config = pods.pod()
    pod = wherryd.cri.run_pod(config, "runc")
    container = wherryd.cri.create(pod, pods.container("busybox", ["sleep", "1000"]), config)
    update(wherryd, container, memory_limit_in_bytes=64 * MEBI)  # before its create: in the bundle
    wherryd.cri.start(container)
    cgroup = f"{wherryd.cgroup_parent}/{pod}/{container}"
    assert limits(cgroup)[0] == 64 * MEBI
    update(wherryd, container, memory_limit_in_bytes=96 * MEBI, cpu_quota=20_000, cpu_period=100_000)
    assert limits(cgroup) == (96 * MEBI, 20_000)
    stats = wherryd.cri.runtime.ContainerStats(api_pb2.ContainerStatsRequest(container_id=container), timeout=10).stats
    assert stats.memory.available_bytes.value > 0
    assert stats.cpu.usage_core_nano_seconds.value > 0


def test_a_pod_is_limited_as_a_whole(wherryd: Wherryd, pods: PodMaker) -> None:
    pod = wherryd.cri.run_pod(pods.pod())

    def update_pod(overhead: api_pb2.LinuxContainerResources, resources: api_pb2.LinuxContainerResources) -> None:
        request = api_pb2.UpdatePodSandboxResourcesRequest(pod_sandbox_id=pod, overhead=overhead, resources=resources)
        wherryd.cri.runtime.UpdatePodSandboxResources(request, timeout=20)

    containers = Resources(memory_limit_in_bytes=100 * MEBI, cpu_period=100_000, cpu_quota=50_000)
    update_pod(Resources(memory_limit_in_bytes=28 * MEBI, cpu_period=100_000, cpu_quota=10_000), containers)
    cgroup = f"{wherryd.cgroup_parent}/{pod}"
    assert limits(cgroup) == (128 * MEBI, 60_000)
    update_pod(Resources(), Resources(memory_limit_in_bytes=200 * MEBI))
    assert limits(cgroup) == (200 * MEBI, 60_000)
    wherryd.cri.remove_pod(pod)
    with pytest.raises(grpc.RpcError) as caught:
        update_pod(Resources(), Resources(memory_limit_in_bytes=200 * MEBI))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_pod_in_a_cgroup_that_nobody_made(wherryd: Wherryd, pods: PodMaker) -> None:
    pod = wherryd.cri.run_pod(pods.pod(cgroup_parent=f"{wherryd.cgroup_parent}/absent"))
    request = api_pb2.UpdatePodSandboxResourcesRequest(pod_sandbox_id=pod, resources=Resources(memory_limit_in_bytes=MEBI))
    with pytest.raises(grpc.RpcError) as caught:
        wherryd.cri.runtime.UpdatePodSandboxResources(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "does not exist" in caught.value.details()
