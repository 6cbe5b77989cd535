"""ReopenContainerLog: write on in a new file after kubelet has renamed the old one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shim.errors import FailedPrecondition
from shim.store.containers import State

if TYPE_CHECKING:
    from shim.pod.node import Node


async def reopen_container_log(node: Node, container_id: str) -> None:
    """Reopen the log of a running container; raise NotFound, FailedPrecondition when it does not run."""
    container = node.containers.get(container_id)
    if container.state is not State.RUNNING:
        raise FailedPrecondition(f"container {container.id} is {container.state}, not running")
    await node.monitors.get(container.pod_id).reopen_log(container.id)
