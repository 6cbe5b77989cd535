"""StopPodSandbox: containers, network, namespaces, in this order."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, Any

from shim.container.exits import announce, lost
from shim.container.stop import LIVE, stop
from shim.errors import WherryError
from shim.events import EventKind
from shim.pod.timing import Timing

if TYPE_CHECKING:
    from shim.pod.node import Node
    from shim.store.pods import Pod


async def stop_pod_sandbox(node: Node, pod_id: str) -> None:
    """Stop a pod and everything in it; harmless when it is unknown or stopped. Goes on when the caller leaves.

    What fails is raised after the rest has been tried; a repetition tries again what is left.
    """
    pod = node.pods.find(pod_id)
    if pod is not None:
        await node.flights.join(("stop", pod.id), lambda: stop_pod(node, pod.id), detached=True)


async def stop_pod(node: Node, pod_id: str) -> None:
    """Stop a pod, within a call that holds the pod.

    It is NOTREADY from the beginning, so that nothing new starts in it; what of it is left stands in the row.
    """
    pod = node.pods.find(pod_id)
    if pod is None or (pod.status.stopped_at and not pod.status.network and not pod.status.namespaces):
        return
    timing = Timing("pod stopped")
    first = not pod.status.stopped_at
    if first:
        now = time.time_ns()
        await node.pods.update(pod_id, lambda status: dataclasses.replace(status, stopped_at=now))
    errors = await _stop_containers(node, pod)
    await _tell_plugins(node, pod_id)
    if first:
        node.tell(EventKind.STOPPED, pod_id, pod_id)
    timing.mark("containers")
    undone: dict[str, Any] = {}
    for step in (_detach, _tear_down):
        try:
            undone |= await step(node, pod)
        except (WherryError, OSError) as error:
            errors.append(error)
        timing.mark(step.__name__.strip("_"))
    await node.pods.update(pod_id, lambda status: dataclasses.replace(status, **undone))
    if errors:
        raise errors[0]
    timing.log(pod=pod_id)


async def _stop_containers(node: Node, pod: Pod) -> list[BaseException]:
    living = [container for container in node.containers.of_pod(pod.id) if container.state in LIVE]
    results = await asyncio.gather(*(stop(node, container, 0) for container in living), return_exceptions=True)
    return [result for result in results if isinstance(result, BaseException)]


async def _tell_plugins(node: Node, pod_id: str) -> None:
    """Tell plugins of NRI what has ended, while the pod's namespaces and its network are still there."""
    exchange = node.nri.active
    if exchange is None:
        return
    for container in node.containers.of_pod(pod_id):
        if container.state not in LIVE:
            await exchange.stopped(container.id)
    await exchange.stop_pod(node.pods.get(pod_id))


async def _detach(node: Node, pod: Pod) -> dict[str, Any]:
    if pod.status.network:
        await node.network.detach(pod)
    return {"network": ""}


async def _tear_down(node: Node, pod: Pod) -> dict[str, Any]:
    monitor = await node.monitors.ensure(pod.id)
    await monitor.teardown_pod()
    for container in node.containers.of_pod(pod.id):
        if container.state in LIVE:
            announce(node, await node.containers.update(container.id, lost))
    return {"namespaces": {}}
