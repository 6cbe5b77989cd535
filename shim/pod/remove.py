"""RemovePodSandbox: stop it if need be, remove its containers, then everything it consists of."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from shim.container.remove import remove_container
from shim.events import EventKind
from shim.pod.cgroup import remove_cgroup
from shim.pod.files import remove_pod_files
from shim.pod.stop import stop_pod_sandbox

if TYPE_CHECKING:
    from shim.pod.node import Node


async def remove_pod_sandbox(node: Node, pod_id: str) -> None:
    """Remove a pod with its containers; harmless when it is unknown. Goes on when the caller leaves."""
    pod = node.pods.find(pod_id)
    if pod is not None:
        await node.flights.join(("remove", pod.id), lambda: _remove(node, pod.id), detached=True)


async def _remove(node: Node, pod_id: str) -> None:
    pod = node.pods.find(pod_id)
    if pod is None:
        return
    await stop_pod_sandbox(node, pod_id)
    pod = await node.pods.update(pod_id, lambda status: dataclasses.replace(status, removing=True))
    for container in node.containers.of_pod(pod_id):
        await remove_container(node, container.id)
    exchange = node.nri.active
    if exchange is not None:
        await exchange.remove_pod(pod)
    await node.monitors.stop(pod_id)
    remove_cgroup(pod.meta.cgroup)
    await remove_pod_files(node.pod_dir(pod_id))
    await node.pods.remove(pod_id)
    node.tell(EventKind.DELETED, pod_id, pod_id, gone=pod)
