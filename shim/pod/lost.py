"""A pod whose monitor is gone: it does not run any more, and nothing of it may go on unseen."""

from __future__ import annotations

import dataclasses
import signal
import time
from typing import TYPE_CHECKING

import structlog

from shim.container.exits import announce, lost
from shim.container.stop import LIVE
from shim.errors import NotFound, WherryError
from shim.events import EventKind

if TYPE_CHECKING:
    from shim.pod.node import Node
    from shim.store.containers import Container

log = structlog.get_logger()


async def pod_lost(node: Node, pod_id: str) -> None:
    """Mark a pod NOTREADY and kill what is left of its containers, through a new monitor that finds them by their records.

    Their output has nobody to read it any more, so letting them go on would be worse than an end that kubelet sees.
    """
    if pod_id not in node.pods:
        return
    now = time.time_ns()
    first = not node.pods.get(pod_id).status.stopped_at
    pod = await node.pods.update(pod_id, lambda status: dataclasses.replace(status, stopped_at=status.stopped_at or now))
    log.error("the monitor of a pod is lost; its containers are ended", pod=pod_id, name=pod.name)
    for container in node.containers.of_pod(pod_id):
        if container.state in LIVE:
            await _end(node, container)
    if first:
        node.tell(EventKind.STOPPED, pod_id, pod_id)


async def _end(node: Node, container: Container) -> None:
    """Kill one container; its end is told by the new monitor, or noted as lost when that does not know it."""
    try:
        monitor = await node.monitors.ensure(container.pod_id)
        known = {one.id: one for one in await monitor.containers()}
        if container.id in known and known[container.id].status != "stopped":
            await monitor.kill(container.id, signal.SIGKILL, all_processes=True)
            return
    except NotFound:
        pass
    except (WherryError, OSError) as error:
        log.warning("a container of a lost monitor could not be killed", container=container.id, error=str(error))
    announce(node, await node.containers.update(container.id, lost))
