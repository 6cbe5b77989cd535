"""Stats and metrics against what containers are made to do."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from runtime.apply.cgroup import detect
from shim.config import METRIC_KINDS
from shim.gen.runtime.v1 import api_pb2
from tests.support.tools import find_tool
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

MEBI = 1 << 20
PRESSURE = any(os.path.exists(f"/sys/fs/cgroup/{folder}cpu.pressure") for folder in ("", "unified/"))
"""Whether the kernel tells of pressure in control groups."""
BUDGET_MS = 10.0
"""ListContainerStats with 50 pods: a third of what the quickest peer needs."""


def run_one(daemon: Wherryd, maker: PodMaker, command: list[str], **resources: Any) -> tuple[str, str]:
    """Run a pod with one busybox container and give their ids."""
    config = maker.pod(labels={"app": "one"}, annotations={"note": "pod"})
    pod = daemon.cri.run_pod(config)
    linux = api_pb2.LinuxContainerConfig(resources=api_pb2.LinuxContainerResources(**resources))
    box = maker.container("busybox", command, labels={"tier": "box"}, annotations={"note": "box"}, linux=linux)
    container = daemon.cri.create(pod, box, config)
    daemon.cri.start(container)
    return pod, container


def stats_of(daemon: Wherryd, container: str) -> api_pb2.ContainerStats:
    return daemon.cri.runtime.ContainerStats(api_pb2.ContainerStatsRequest(container_id=container), timeout=10).stats


def listed(daemon: Wherryd, **wanted: object) -> list[str]:
    request = api_pb2.ListContainerStatsRequest(filter=api_pb2.ContainerStatsFilter(**wanted))
    return [one.attributes.id for one in daemon.cri.runtime.ListContainerStats(request, timeout=10).stats]


def test_a_busy_container_is_seen(wherryd: Wherryd, pods: PodMaker) -> None:
    busy = ["sh", "-c", "while :; do :; done"]
    _pod, container = run_one(wherryd, pods, busy, memory_limit_in_bytes=64 * MEBI, cpu_period=100_000, cpu_quota=50_000)

    def used_some() -> bool:
        return stats_of(wherryd, container).cpu.usage_core_nano_seconds.value > 200_000_000

    wait_for(used_some, "the loop to use 0.2 s of processor time")
    stats = stats_of(wherryd, container)
    assert stats.attributes.id == container
    assert (stats.attributes.metadata.name, dict(stats.attributes.labels)) == ("main", {"tier": "box"})
    assert dict(stats.attributes.annotations) == {"note": "box"}
    assert 0 < stats.cpu.usage_nano_cores.value < 1_000_000_000
    memory = stats.memory
    assert 0 < memory.working_set_bytes.value <= memory.usage_bytes.value <= 64 * MEBI
    assert memory.available_bytes.value == 64 * MEBI - memory.working_set_bytes.value
    assert memory.rss_bytes.value > 0
    assert memory.page_faults.value > 0
    assert {part.HasField("psi") for part in (stats.cpu, memory, stats.io)} == {PRESSURE}
    assert stats.swap.HasField("swap_usage_bytes")
    for at in (stats.cpu.timestamp, memory.timestamp, stats.swap.timestamp, stats.writable_layer.timestamp):
        assert abs(at - time.time_ns()) < 60 * 10**9


def test_memory_and_the_writable_layer_follow_the_container(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container = run_one(wherryd, pods, ["sleep", "1000"])
    before = stats_of(wherryd, container)
    assert before.writable_layer.inodes_used.value >= 1
    answer = wherryd.cri.execute(
        container, "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=8 && ln /big /same && cat /big >/dev/null"
    )
    assert answer.exit_code == 0

    def walked() -> bool:
        layer = stats_of(wherryd, container).writable_layer
        return layer.used_bytes.value >= 8 * MEBI

    wait_for(walked, "the layer to be measured again", seconds=30)
    after = stats_of(wherryd, container)
    assert after.writable_layer.used_bytes.value < 9 * MEBI  # a hard link takes nothing
    assert after.writable_layer.timestamp > before.writable_layer.timestamp
    assert after.memory.usage_bytes.value > before.memory.usage_bytes.value + 7 * MEBI
    assert after.writable_layer.fs_id.mountpoint == str(wherryd.root)


def test_filters_and_states(wherryd: Wherryd, pods: PodMaker) -> None:
    pod, first = run_one(wherryd, pods, ["sleep", "1000"])
    _other, second = run_one(wherryd, pods, ["sleep", "1000"])
    assert sorted(listed(wherryd)) == sorted([first, second])
    assert listed(wherryd, id=first[:13]) == [first]
    assert listed(wherryd, pod_sandbox_id=pod) == [first]
    assert listed(wherryd, pod_sandbox_id=pod, id=second) == []
    assert len(listed(wherryd, label_selector={"tier": "box"})) == 2
    assert listed(wherryd, label_selector={"tier": "none"}) == []
    wherryd.cri.stop(first)
    assert listed(wherryd) == [second]
    ended = stats_of(wherryd, first)
    assert not ended.HasField("cpu")
    assert ended.HasField("writable_layer")
    with pytest.raises(grpc.RpcError) as caught:
        stats_of(wherryd, "f" * 64)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_pod_with_its_network(wherryd: Wherryd, pods: PodMaker) -> None:
    config = pods.pod(labels={"app": "one"})
    pod = wherryd.cri.run_pod(config)

    def pod_stats() -> api_pb2.PodSandboxStats:
        return wherryd.cri.runtime.PodSandboxStats(api_pb2.PodSandboxStatsRequest(pod_sandbox_id=pod), timeout=10).stats

    empty = pod_stats()
    assert empty.linux.network.default_interface.name == "eth0"  # nobody runs in there: the namespace itself is asked
    assert [one.name for one in empty.linux.network.interfaces] == ["eth0"]
    container = wherryd.cri.create(pod, pods.container("busybox", ["sleep", "1000"]), config)
    wherryd.cri.start(container)
    gateway = wherryd.cri.pod_status(pod).network.ip.rpartition(".")[0] + ".1"
    assert wherryd.cri.execute(container, "ping", "-c", "3", "-i", "0.1", "-s", "1000", gateway).exit_code == 0
    full = pod_stats()
    for name in ("rx_bytes", "tx_bytes"):
        before = getattr(empty.linux.network.default_interface, name).value
        assert getattr(full.linux.network.default_interface, name).value >= before + 3000
    assert full.linux.process.process_count.value == 1
    assert full.linux.cpu.usage_core_nano_seconds.value > 0
    assert full.linux.memory.working_set_bytes.value > 0
    assert [one.attributes.id for one in full.linux.containers] == [container]
    assert dict(full.attributes.labels) == {"app": "one"}
    threads = {
        os.readlink(f"/proc/{wherryd.process.pid}/task/{task}/ns/net")
        for task in os.listdir(f"/proc/{wherryd.process.pid}/task")
    }
    assert len(threads) == 1  # the one that looked has come home
    (netns,) = os.listdir(wherryd.netns)
    link = ["nsenter", f"--net={wherryd.netns / netns}", find_tool("ip"), "link", "delete", "eth0"]
    subprocess.run(link, check=True)
    assert not pod_stats().linux.HasField("network")  # kubelet would look for the default interface, and end without one


def test_host_network_pods_have_no_network_of_their_own(wherryd: Wherryd, pods: PodMaker) -> None:
    pod = wherryd.cri.run_pod(pods.pod(host_network=True))
    request = api_pb2.ListPodSandboxStatsRequest(filter=api_pb2.PodSandboxStatsFilter(id=pod))
    (stats,) = wherryd.cri.runtime.ListPodSandboxStats(request, timeout=10).stats
    assert not stats.linux.HasField("network")


def test_metrics_fit_their_descriptors(wherryd: Wherryd, pods: PodMaker) -> None:
    pod, container = run_one(
        wherryd, pods, ["sleep", "1000"], cpu_period=100_000, cpu_quota=20_000, memory_limit_in_bytes=64 * MEBI
    )
    runtime = wherryd.cri.runtime
    known = {
        one.name: one for one in runtime.ListMetricDescriptors(api_pb2.ListMetricDescriptorsRequest(), timeout=10).descriptors
    }
    (of_pod,) = runtime.ListPodSandboxMetrics(api_pb2.ListPodSandboxMetricsRequest(), timeout=10).pod_metrics
    (streamed,) = runtime.StreamPodSandboxMetrics(api_pb2.StreamPodSandboxMetricsRequest(), timeout=10)
    assert streamed.pod_sandbox_metrics[0].pod_sandbox_id == of_pod.pod_sandbox_id == pod
    (of_container,) = of_pod.container_metrics
    assert of_container.container_id == container
    for metric in (*of_pod.metrics, *of_container.metrics):
        assert len(metric.label_values) == len(known[metric.name].label_keys), metric.name
    values = {metric.name: metric.value.value for metric in of_container.metrics}
    assert values["container_spec_memory_limit_bytes"] == 64 * MEBI
    assert values["container_spec_cpu_quota"] == 20_000
    assert values["container_processes"] == values["container_threads"] == 1
    assert values["container_file_descriptors"] >= 3
    assert abs(values["container_start_time_seconds"] - time.time()) < 60
    labels = dict(zip(known["container_last_seen"].label_keys, of_container.metrics[0].label_values, strict=True))
    assert (labels["container"], labels["name"], labels["namespace"]) == ("main", container, "default")
    assert labels["id"].endswith(f"/{container}")
    assert any(metric.name == "container_network_receive_bytes_total" for metric in of_pod.metrics)


EVERYTHING = {"extra": f"[metrics]\nalso = {json.dumps(METRIC_KINDS)}\n"}


@pytest.mark.parametrize("wherryd", [EVERYTHING], indirect=True)
def test_metrics_that_are_asked_for(wherryd: Wherryd, pods: PodMaker) -> None:
    script = "nc -l -p 4000 & while :; do :; done"
    _pod, _container = run_one(wherryd, pods, ["sh", "-c", script])
    runtime = wherryd.cri.runtime
    request = api_pb2.ListMetricDescriptorsRequest()
    known = {one.name: one for one in runtime.ListMetricDescriptors(request, timeout=10).descriptors}

    def found() -> dict[tuple[str, ...], int]:
        (of_pod,) = runtime.ListPodSandboxMetrics(api_pb2.ListPodSandboxMetricsRequest(), timeout=10).pod_metrics
        together = (*of_pod.metrics, *of_pod.container_metrics[0].metrics)
        for metric in together:
            assert len(metric.label_values) == len(known[metric.name].label_keys), metric.name
        return {(metric.name, *metric.label_values[6:]): metric.value.value for metric in together}

    def listens() -> bool:
        values = found()
        sockets = values["container_network_tcp_usage_total", "listen"] + values["container_network_tcp6_usage_total", "listen"]
        return sockets == 1 and values["container_cpu_schedstat_run_periods_total",] > 10

    wait_for(listens, "nc to listen and the loop to run")
    values = found()
    assert sum(values["container_tasks_state", state] for state in ("running", "sleeping")) == 2
    assert 1 <= values["container_cpu_load_average_10s",] <= 3000
    assert values["container_referenced_bytes",] > 100_000
    assert values["container_network_udp_usage_total", "listen"] == 0
    assert values["container_network_advance_tcp_stats_total", "rtomin"] > 0
    assert any(name[0] == "container_memory_numa_pages" for name in values)


def test_huge_pages_are_limited_wherever_their_controller_is(wherryd: Wherryd, pods: PodMaker) -> None:
    layout = detect()
    place = next((one for one in layout.hierarchies if "hugetlb" in one.controllers), None)
    if place is None or not os.path.isdir("/sys/kernel/mm/hugepages/hugepages-2048kB"):
        pytest.skip("no hugetlb controller or no huge pages of 2 MB here")
    switch = f"{place.mount}/cgroup.subtree_control"
    was_on = place.version == 1 or "hugetlb" in Path(switch).read_text()
    limits = [api_pb2.HugepageLimit(page_size="2MB", limit=4 * MEBI)]
    pod, container = run_one(wherryd, pods, ["sleep", "1000"], hugepage_limits=limits)
    folder = f"{place.mount}{wherryd.cgroup_parent}/{pod}/{container}"
    name = "hugetlb.2MB.max" if place.version == 2 else "hugetlb.2MB.limit_in_bytes"
    assert Path(folder, name).read_text().strip() == str(4 * MEBI)
    update = api_pb2.UpdateContainerResourcesRequest(container_id=container)
    update.linux.hugepage_limits.add(page_size="2MB", limit=2 * MEBI)
    wherryd.cri.runtime.UpdateContainerResources(update, timeout=10)
    assert Path(folder, name).read_text().strip() == str(2 * MEBI)
    (of_pod,) = wherryd.cri.runtime.ListPodSandboxMetrics(api_pb2.ListPodSandboxMetricsRequest(), timeout=10).pod_metrics
    names = {metric.name for metric in of_pod.container_metrics[0].metrics}
    assert {"container_hugetlb_usage_bytes", "container_hugetlb_failcnt"} <= names
    wherryd.cri.remove_pod(pod)
    if not was_on:
        Path(f"{place.mount}{wherryd.cgroup_parent}").rmdir()
        Path(switch).write_text("-hugetlb")


def test_streamed_lists_hold_what_lists_hold(wherryd: Wherryd, pods: PodMaker) -> None:
    for _ in range(3):
        run_one(wherryd, pods, ["sleep", "1000"])
    runtime = wherryd.cri.runtime
    streams = {
        "containers": runtime.StreamContainers(api_pb2.StreamContainersRequest(), timeout=10),
        "pod_sandboxes": runtime.StreamPodSandboxes(api_pb2.StreamPodSandboxesRequest(), timeout=10),
        "container_stats": runtime.StreamContainerStats(api_pb2.StreamContainerStatsRequest(), timeout=10),
        "pod_sandbox_stats": runtime.StreamPodSandboxStats(api_pb2.StreamPodSandboxStatsRequest(), timeout=10),
        "images": wherryd.cri.images.StreamImages(api_pb2.StreamImagesRequest(), timeout=10),
    }
    counts = {name: sum(len(getattr(part, name)) for part in stream) for name, stream in streams.items()}
    assert counts == {"containers": 3, "pod_sandboxes": 3, "container_stats": 3, "pod_sandbox_stats": 3, "images": 1}
    wanted = api_pb2.ContainerFilter(id="f" * 64)
    assert list(runtime.StreamContainers(api_pb2.StreamContainersRequest(filter=wanted), timeout=10)) == []


def test_stats_of_fifty_pods_are_quick(wherryd: Wherryd, pods: PodMaker) -> None:
    for _ in range(50):
        run_one(wherryd, pods, ["sleep", "1000"])
    times = []
    for _ in range(15):
        began = time.perf_counter()
        found = wherryd.cri.runtime.ListContainerStats(api_pb2.ListContainerStatsRequest(), timeout=10)
        times.append((time.perf_counter() - began) * 1000)
        assert len(found.stats) == 50
    assert min(times) <= BUDGET_MS, f"median {statistics.median(times):.1f} ms, best {min(times):.1f} ms"
