"""Statistics, metrics, changes of limits."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from conformance.cri.subject import refused
from shim.gen.runtime.v1 import api_pb2
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.cri.subject import Pod, Subject

MIB = 1 << 20


@pytest.fixture(scope="module")
def busy_pod(endpoint: Subject) -> Pod:
    return endpoint.run(network=True, labels={"busy": "yes"})


@pytest.fixture(scope="module")
def busy(busy_pod: Pod) -> str:
    script = "head -c 3000000 /dev/zero > /written; while :; do :; done"
    order = busy_pod.order(("sh", "-c", script), labels={"kind": "busy"}, annotations={"note": "b"})
    order.linux.resources.memory_limit_in_bytes = 128 * MIB
    container = busy_pod.cri.create(busy_pod.id, order, busy_pod.config)
    busy_pod.cri.start(container)
    return container


def _container(subject: Subject, container: str) -> api_pb2.ContainerStats:
    found: api_pb2.ContainerStats = subject.cri.runtime.ContainerStats(
        api_pb2.ContainerStatsRequest(container_id=container), timeout=10
    ).stats
    return found


def _pod(subject: Subject, pod: str) -> api_pb2.PodSandboxStats:
    found: api_pb2.PodSandboxStats = subject.cri.runtime.PodSandboxStats(
        api_pb2.PodSandboxStatsRequest(pod_sandbox_id=pod), timeout=10
    ).stats
    return found


CONTAINER: dict[str, Callable[[api_pb2.ContainerStats], Any]] = {
    "id": lambda stats: len(stats.attributes.id) == 64,
    "name": lambda stats: stats.attributes.metadata.name,
    "labels": lambda stats: stats.attributes.labels["kind"] == "busy",
    "annotations": lambda stats: stats.attributes.annotations["note"] == "b",
    "cpu time": lambda stats: stats.cpu.timestamp and stats.cpu.usage_core_nano_seconds.value > 0,
    "working set": lambda stats: stats.memory.timestamp and 0 < stats.memory.working_set_bytes.value < 128 * MIB,
    "memory usage": lambda stats: stats.memory.usage_bytes.value >= stats.memory.working_set_bytes.value,
    "resident memory": lambda stats: stats.memory.rss_bytes.value > 0,
    "page faults": lambda stats: stats.memory.page_faults.value > 0,
    "major page faults": lambda stats: stats.memory.HasField("major_page_faults"),
    "available memory": lambda stats: 0 < stats.memory.available_bytes.value <= 128 * MIB,
    "swap": lambda stats: stats.swap.timestamp and stats.swap.HasField("swap_usage_bytes"),
    "available swap": lambda stats: stats.swap.HasField("swap_available_bytes"),
    "IO": lambda stats: stats.io.timestamp,
    "writable layer": lambda stats: stats.writable_layer.timestamp and stats.writable_layer.fs_id.mountpoint,
}


PRESSURES: dict[str, Callable[[Any], api_pb2.PsiStats]] = {
    "cpu": lambda stats: stats.cpu.psi,
    "memory": lambda stats: stats.memory.psi,
    "io": lambda stats: stats.io.psi,
}
TELLS_PRESSURE = any(os.path.exists(f"/sys/fs/cgroup/{folder}cpu.pressure") for folder in ("", "unified/"))
"""Whether the kernel tells of pressure in control groups, at which a container's are."""

if TELLS_PRESSURE:

    @pytest.mark.parametrize("name", PRESSURES)
    def test_pressure(subject: Subject, busy: str, busy_pod: Pod, name: str) -> None:
        for stats in (_container(subject, busy), _pod(subject, busy_pod.id).linux):
            pressure = PRESSURES[name](stats)
            assert pressure.HasField("Full")
            assert pressure.HasField("Some")
            for data in (pressure.Full, pressure.Some):
                assert all(0 <= average <= 100 for average in (data.Avg10, data.Avg60, data.Avg300))
            assert pressure.Some.Total >= pressure.Full.Total

    def test_pressure_grows(subject: Subject, shared_pod: Pod) -> None:
        """Two loops that share a fifth of a processor wait for each other, or for their next turn."""
        order = shared_pod.order(("sh", "-c", "while :; do :; done & while :; do :; done"))
        order.linux.resources.cpu_period, order.linux.resources.cpu_quota = 100_000, 20_000
        container = subject.cri.create(shared_pod.id, order, shared_pod.config)
        subject.cri.start(container)
        wait_for(lambda: _container(subject, container).cpu.psi.Some.Avg10 > 0, "pressure to be told", seconds=20)


@pytest.mark.parametrize("name", CONTAINER)
def test_container_has(subject: Subject, busy: str, name: str) -> None:
    wait_for(lambda: CONTAINER[name](_container(subject, busy)), f"{name} to be told", seconds=15)


def test_writable_layer_has_what_was_written(subject: Subject, busy: str) -> None:
    wait_for(
        lambda: _container(subject, busy).writable_layer.used_bytes.value >= 3_000_000, "the file to be counted", seconds=15
    )
    assert _container(subject, busy).writable_layer.inodes_used.value > 0


def test_cpu_time_grows(subject: Subject, busy: str) -> None:
    first = _container(subject, busy).cpu.usage_core_nano_seconds.value
    wait_for(lambda: _container(subject, busy).cpu.usage_core_nano_seconds.value > first, "the counter to grow", seconds=15)


def test_cpu_rate(subject: Subject, busy: str) -> None:
    wait_for(lambda: _container(subject, busy).cpu.usage_nano_cores.value > 0, "the rate to be told", seconds=20)


FILTERS: dict[str, tuple[Callable[[Pod, str], api_pb2.ContainerStatsFilter], bool]] = {
    "nothing": (lambda _pod, _one: api_pb2.ContainerStatsFilter(), True),
    "id": (lambda _pod, one: api_pb2.ContainerStatsFilter(id=one), True),
    "another id": (lambda _pod, _one: api_pb2.ContainerStatsFilter(id="0" * 64), False),
    "pod": (lambda pod, _one: api_pb2.ContainerStatsFilter(pod_sandbox_id=pod.id), True),
    "another pod": (lambda _pod, _one: api_pb2.ContainerStatsFilter(pod_sandbox_id="0" * 64), False),
    "label": (lambda _pod, _one: api_pb2.ContainerStatsFilter(label_selector={"kind": "busy"}), True),
    "wrong label": (lambda _pod, _one: api_pb2.ContainerStatsFilter(label_selector={"kind": "idle"}), False),
}


@pytest.mark.parametrize("name", FILTERS)
def test_list_of_containers_filters_by(subject: Subject, busy_pod: Pod, busy: str, name: str) -> None:
    make, expected = FILTERS[name]
    request = api_pb2.ListContainerStatsRequest(filter=make(busy_pod, busy))
    found = {one.attributes.id for one in subject.cri.runtime.ListContainerStats(request, timeout=10).stats}
    assert (busy in found) is expected


def test_list_leaves_out_what_has_ended(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.finish(("true",)).id
    request = api_pb2.ListContainerStatsRequest(filter=api_pb2.ContainerStatsFilter(pod_sandbox_id=shared_pod.id))
    assert container not in {one.attributes.id for one in subject.cri.runtime.ListContainerStats(request, timeout=10).stats}


POD: dict[str, Callable[[api_pb2.PodSandboxStats], Any]] = {
    "id": lambda stats: len(stats.attributes.id) == 64,
    "metadata": lambda stats: stats.attributes.metadata.namespace == "default",
    "labels": lambda stats: stats.attributes.labels["busy"] == "yes",
    "cpu time": lambda stats: stats.linux.cpu.usage_core_nano_seconds.value > 0,
    "working set": lambda stats: stats.linux.memory.working_set_bytes.value > 0,
    "processes": lambda stats: stats.linux.process.process_count.value >= 1,
    "containers": lambda stats: len(stats.linux.containers) == 1,
    "interface": lambda stats: stats.linux.network.default_interface.name == "eth0",
    "received bytes": lambda stats: stats.linux.network.default_interface.HasField("rx_bytes"),
}


@pytest.mark.parametrize("name", POD)
def test_pod_has(subject: Subject, busy_pod: Pod, busy: str, name: str) -> None:
    del busy
    wait_for(lambda: POD[name](_pod(subject, busy_pod.id)), f"{name} to be told", seconds=15)


POD_FILTERS: dict[str, tuple[Callable[[Pod], api_pb2.PodSandboxStatsFilter], bool]] = {
    "nothing": (lambda _pod: api_pb2.PodSandboxStatsFilter(), True),
    "id": (lambda pod: api_pb2.PodSandboxStatsFilter(id=pod.id), True),
    "another id": (lambda _pod: api_pb2.PodSandboxStatsFilter(id="0" * 64), False),
    "label": (lambda _pod: api_pb2.PodSandboxStatsFilter(label_selector={"busy": "yes"}), True),
    "wrong label": (lambda _pod: api_pb2.PodSandboxStatsFilter(label_selector={"busy": "no"}), False),
}


@pytest.mark.parametrize("name", POD_FILTERS)
def test_list_of_pods_filters_by(subject: Subject, busy_pod: Pod, busy: str, name: str) -> None:
    del busy
    make, expected = POD_FILTERS[name]
    request = api_pb2.ListPodSandboxStatsRequest(filter=make(busy_pod))
    found = {one.attributes.id for one in subject.cri.runtime.ListPodSandboxStats(request, timeout=10).stats}
    assert (busy_pod.id in found) is expected


STREAMS = {
    "StreamPodSandboxes": ("pod_sandboxes", "ListPodSandbox", "items"),
    "StreamContainers": ("containers", "ListContainers", "containers"),
    "StreamContainerStats": ("container_stats", "ListContainerStats", "stats"),
    "StreamPodSandboxStats": ("pod_sandbox_stats", "ListPodSandboxStats", "stats"),
    "StreamPodSandboxMetrics": ("pod_sandbox_metrics", "ListPodSandboxMetrics", "pod_metrics"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_stream_gives_what_the_list_gives(subject: Subject, busy: str, name: str) -> None:
    del busy
    field, list_name, list_field = STREAMS[name]
    listed = getattr(subject.cri.runtime, list_name)(getattr(api_pb2, f"{list_name}Request")(), timeout=10)
    parts = getattr(subject.cri.runtime, name)(getattr(api_pb2, f"{name}Request")(), timeout=10)
    streamed = [one for part in parts for one in getattr(part, field)]
    assert sorted(map(_name, streamed)) == sorted(map(_name, getattr(listed, list_field)))
    assert streamed


ONE_OF_THEM: dict[str, Callable[[Pod, str], tuple[Any, str]]] = {
    "StreamPodSandboxes": lambda pod, _one: (api_pb2.PodSandboxFilter(id=pod.id), pod.id),
    "StreamContainers": lambda _pod, one: (api_pb2.ContainerFilter(id=one), one),
    "StreamContainerStats": lambda _pod, one: (api_pb2.ContainerStatsFilter(id=one), one),
    "StreamPodSandboxStats": lambda pod, _one: (api_pb2.PodSandboxStatsFilter(id=pod.id), pod.id),
}


@pytest.mark.parametrize("name", ONE_OF_THEM)
def test_stream_filters_by_id(subject: Subject, shared_pod: Pod, sleeper: str, name: str) -> None:
    wanted, expected = ONE_OF_THEM[name](shared_pod, sleeper)
    parts = getattr(subject.cri.runtime, name)(getattr(api_pb2, f"{name}Request")(filter=wanted), timeout=10)
    assert [_name(one) for part in parts for one in getattr(part, STREAMS[name][0])] == [expected]


def test_stream_of_images_filters_by_name(subject: Subject) -> None:
    wanted = api_pb2.ImageFilter(image=api_pb2.ImageSpec(image=subject.image))
    parts = subject.images.images.StreamImages(api_pb2.StreamImagesRequest(filter=wanted), timeout=10)
    assert [subject.image in one.repo_tags for part in parts for one in part.images] == [True]


def _name(message: Any) -> str:
    for path in (("id",), ("attributes", "id"), ("pod_sandbox_id",)):
        value = message
        for word in path:
            value = getattr(value, word, None)
        if value:
            return str(value)
    raise AssertionError(message)


def test_stream_of_images(subject: Subject) -> None:
    listed = subject.images.images.ListImages(api_pb2.ListImagesRequest(), timeout=10).images
    parts = subject.images.images.StreamImages(api_pb2.StreamImagesRequest(), timeout=10)
    assert sorted(one.id for part in parts for one in part.images) == sorted(one.id for one in listed)


def test_metrics_are_described(subject: Subject, busy: str, busy_pod: Pod) -> None:
    described = {
        one.name: len(one.label_keys)
        for one in subject.cri.runtime.ListMetricDescriptors(api_pb2.ListMetricDescriptorsRequest(), timeout=10).descriptors
    }
    answer = subject.cri.runtime.ListPodSandboxMetrics(api_pb2.ListPodSandboxMetricsRequest(), timeout=10)
    (pod,) = (one for one in answer.pod_metrics if one.pod_sandbox_id == busy_pod.id)
    (container,) = (one for one in pod.container_metrics if one.container_id == busy)
    assert {one.name for one in container.metrics} >= {"container_cpu_usage_seconds_total", "container_memory_usage_bytes"}
    for metric in [*pod.metrics, *container.metrics]:
        assert described[metric.name] == len(metric.label_values)
    kinds = {metric.name: metric.metric_type for metric in container.metrics}
    assert kinds["container_cpu_usage_seconds_total"] == api_pb2.COUNTER
    assert kinds["container_memory_usage_bytes"] == api_pb2.GAUGE


def test_metrics_are_explained(subject: Subject) -> None:
    found = subject.cri.runtime.ListMetricDescriptors(api_pb2.ListMetricDescriptorsRequest(), timeout=10).descriptors
    assert len({one.name for one in found}) == len(found)
    assert all(one.help and one.label_keys for one in found)


def _update(subject: Subject, container: str, **fields: Any) -> None:
    resources = api_pb2.LinuxContainerResources(**fields)
    request = api_pb2.UpdateContainerResourcesRequest(container_id=container, linux=resources)
    subject.cri.runtime.UpdateContainerResources(request, timeout=10)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cpu_shares", 2048),
        ("cpu_quota", 30000),
        ("memory_limit_in_bytes", 96 * MIB),
        ("cpuset_cpus", "0"),
        ("cpu_period", 50000),
    ],
)
def test_update_is_shown(subject: Subject, shared_pod: Pod, field: str, value: Any) -> None:
    container = shared_pod.run()
    _update(subject, container, **{field: value})
    wait_for(lambda: getattr(subject.cri.status(container).resources.linux, field) == value, f"{field} to be shown", seconds=5)


def test_update_limits_the_memory(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.run(("sh", "-c", "sleep 1.5; exec tail -c 100000000 /dev/zero"))
    _update(subject, container, memory_limit_in_bytes=24 * MIB, memory_swap_limit_in_bytes=24 * MIB)
    status = subject.cri.wait_exit(container)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


def test_update_of_a_created_container_is_no_error(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.create()
    _update(subject, container, memory_limit_in_bytes=64 * MIB)
    subject.cri.start(container)
    assert subject.cri.status(container).resources.linux.memory_limit_in_bytes == 64 * MIB


def test_update_of_an_exited_container_is_refused(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.finish(("true",)).id
    refused(lambda: _update(subject, container, cpu_shares=100))


def test_out_of_memory(subject: Subject, shared_pod: Pod) -> None:
    order = shared_pod.order(("tail", "-c", "100000000", "/dev/zero"))
    order.linux.resources.memory_limit_in_bytes = 24 * MIB
    order.linux.resources.memory_swap_limit_in_bytes = 24 * MIB
    container = subject.cri.create(shared_pod.id, order, shared_pod.config)
    subject.cri.start(container)
    status = subject.cri.wait_exit(container)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


def test_update_of_a_pod(subject: Subject, pod: Pod) -> None:
    resources = api_pb2.LinuxContainerResources(cpu_shares=512)
    request = api_pb2.UpdatePodSandboxResourcesRequest(pod_sandbox_id=pod.id, resources=resources)
    subject.cri.runtime.UpdatePodSandboxResources(request, timeout=10)


def test_stats_while_a_pod_ends(subject: Subject) -> None:
    pod = subject.run()
    container = pod.run()
    deadline = time.monotonic() + 0.3
    subject.cri.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=30)
    while time.monotonic() < deadline:
        subject.cri.runtime.ListPodSandboxStats(api_pb2.ListPodSandboxStatsRequest(), timeout=10)
        subject.cri.runtime.ListContainerStats(api_pb2.ListContainerStatsRequest(), timeout=10)
    assert container in subject.container_ids()
