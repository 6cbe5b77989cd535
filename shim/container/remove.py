"""RemoveContainer: kill it if need be, then take away everything but the log, which is kubelet's."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from shim.container.cleanup import remove_container_dir
from shim.container.stop import LIVE, stop
from shim.errors import Unavailable
from shim.events import EventKind
from shim.pod.timing import Timing

if TYPE_CHECKING:
    from shim.pod.node import Node


async def remove_container(node: Node, container_id: str) -> None:
    """Remove a container, killing it first when it runs; harmless for one that is unknown. Goes on when the caller leaves."""
    container = node.containers.find(container_id)
    if container is not None:
        await node.flights.join(("remove", container.id), lambda: _remove(node, container.id), detached=True)


async def _remove(node: Node, container_id: str) -> None:
    container = node.containers.find(container_id)
    if container is None:
        return
    timing = Timing("container removed")
    if container.state in LIVE:
        await stop(node, container, 0)
        timing.mark("stop")
    await node.containers.update(container_id, lambda status: dataclasses.replace(status, removing=True))
    timing.mark("intent")
    await _delete_process(node, container.pod_id, container_id)
    timing.mark("process")
    exchange = node.nri.active
    if exchange is not None:
        await exchange.removed(container_id)
    await remove_container_dir(node, container_id)
    timing.mark("files")
    await node.containers.remove(container_id)
    node.exited.pop(container_id, None)
    timing.mark("row")
    timing.log(container=container_id)
    node.tell(EventKind.DELETED, container_id, container.pod_id)


async def _delete_process(node: Node, pod_id: str, container_id: str) -> None:
    """Let the monitor forget it: state.json, exit record, cgroup. Without a monitor there is nothing left to forget."""
    try:
        monitor = node.monitors.get(pod_id)
    except Unavailable:
        return
    await monitor.delete(container_id)
