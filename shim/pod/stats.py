"""PodSandboxStats and ListPodSandboxStats."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from shim.container.stats import measure as measure_containers
from shim.container.stop import LIVE
from shim.gen.runtime.v1 import api_pb2
from shim.pod.cgroup import pod_cgroup
from shim.pod.status import get_pod, list_pods
from shim.stats import messages
from shim.stats.network import read_interfaces
from shim.stats.processes import members

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shim.gen.runtime.v1.api_pb2 import PodSandboxStatsFilter
    from shim.pod.node import Node
    from shim.store.pods import Pod


async def pod_sandbox_stats(node: Node, pod_id: str) -> api_pb2.PodSandboxStats:
    """Give what one pod uses, with its containers. Raises NotFound."""
    (stats,) = await node.stats.run(_measure(node, [get_pod(node, pod_id)]))
    return stats


async def list_pod_sandbox_stats(node: Node, wanted: PodSandboxStatsFilter) -> list[api_pb2.PodSandboxStats]:
    """Give what the ready pods that pass the filter use."""
    chosen = list_pods(node, api_pb2.PodSandboxFilter(id=wanted.id, label_selector=wanted.label_selector))
    return await node.stats.run(_measure(node, [pod for pod in chosen if pod.ready]))


def _measure(node: Node, pods: Sequence[Pod]) -> Callable[[], list[api_pb2.PodSandboxStats]]:
    """Give the work that measures pods, for the statistics thread."""
    stats = node.stats
    members_of = {pod.id: [one for one in node.containers.of_pod(pod.id) if one.state in LIVE] for pod in pods}
    measure = measure_containers(node, [one for of_pod in members_of.values() for one in of_pod])
    cgroups = {pod.id: pod_cgroup(pod.meta.cgroup, pod.config) for pod in pods}

    def work() -> list[api_pb2.PodSandboxStats]:
        by_id = {one.attributes.id: one for one in measure()}
        networks = read_interfaces(pod.meta.netns for pod in pods if pod.meta.netns and pod.ready)
        found = []
        for pod in pods:
            group = stats.group(pod.id, partial(cgroups.__getitem__, pod.id))
            usage = group.usage()
            rate = stats.rate(pod.id, usage, pod.status.ready_at)
            message = messages.pod_stats(pod, usage, rate, networks.get(pod.meta.netns), len(members(group.member_directory)))
            message.linux.containers.extend(by_id[one.id] for one in members_of[pod.id])
            found.append(message)
        return found

    return work
