"""ContainerStats and ListContainerStats."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from shim.container.spec.inputs import SpecSettings
from shim.container.spec.paths import cgroups_path
from shim.container.status import get_container, list_containers
from shim.container.stop import LIVE
from shim.gen.runtime.v1 import api_pb2
from shim.stats import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shim.gen.runtime.v1.api_pb2 import ContainerStatsFilter
    from shim.pod.node import Node
    from shim.store.containers import Container
    from shim.store.pods import Pod


async def container_stats(node: Node, container_id: str) -> api_pb2.ContainerStats:
    """Give what one container uses: of one that has exited only its writable layer. Raises NotFound."""
    (stats,) = await node.stats.run(measure(node, [get_container(node, container_id)]))
    return stats


async def list_container_stats(node: Node, wanted: ContainerStatsFilter) -> list[api_pb2.ContainerStats]:
    """Give what the living containers that pass the filter use."""
    living = [one for one in list_containers(node, as_container_filter(wanted)) if one.state in LIVE]
    return await node.stats.run(measure(node, living))


def as_container_filter(wanted: ContainerStatsFilter) -> api_pb2.ContainerFilter:
    """Give the same filter for ListContainers."""
    return api_pb2.ContainerFilter(id=wanted.id, pod_sandbox_id=wanted.pod_sandbox_id, label_selector=wanted.label_selector)


def measure(node: Node, containers: Sequence[Container]) -> Callable[[], list[api_pb2.ContainerStats]]:
    """Give the work that measures containers, for the statistics thread."""
    stats = node.stats
    mountpoint = node.config.root
    known = {item.id for store in (node.containers, node.pods) for item in store}
    stats.layers.keep(known)
    pods = {pod.id: pod for pod in node.pods}
    subjects = [
        (one, pods[one.pod_id], stats.layers.get(one.id, layer_dir(node, one.id))) for one in containers if one.pod_id in pods
    ]

    def work() -> list[api_pb2.ContainerStats]:
        stats.keep(known)
        found = []
        for container, pod, layer in subjects:
            usage = None
            if container.state in LIVE:
                usage = stats.group(container.id, partial(container_cgroup, pod, container)).usage()
            rate = None if usage is None else stats.rate(container.id, usage, container.status.created_at)
            found.append(messages.container_stats(container, usage, rate, layer, mountpoint))
        return found

    return work


def container_cgroup(pod: Pod, container: Container) -> str:
    """Give the path of a container's cgroup as its config.json has it."""
    return cgroups_path(pod.config, container.id, SpecSettings(pod_cgroup=pod.meta.cgroup))


def layer_dir(node: Node, container_id: str) -> str:
    """Give the directory of a container's writable layer."""
    return f"{node.container_dir(container_id)}/upper"
