"""StartContainer: open the gate."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from shim.container.bundle import create_request
from shim.container.exits import announce, record_exit
from shim.container.restore import restored_from
from shim.errors import FailedPrecondition, WherryError
from shim.events import EventKind
from shim.monitor.protocol import StartFailed
from shim.pod.timing import Timing
from shim.store.containers import State

if TYPE_CHECKING:
    from shim.monitor.protocol import ContainerCreate, Exited
    from shim.pod.node import Node
    from shim.store.containers import Container, ContainerStatus

START_ERROR_EXIT_CODE = 128
START_ERROR = "StartError"


async def start_container(node: Node, container_id: str) -> None:
    """Start a created container.

    Raises NotFound, FailedPrecondition when it is not in the created state or its pod has stopped, and StartFailed when the
    user's process cannot be executed: the container is then exited, with the reason and exit code of that.
    A start goes on when its caller leaves, because nobody could say whether the process has seen the light.
    """
    container = node.containers.get(container_id)
    await node.flights.join(("start", container.id), lambda: _start(node, container.id), detached=True)


async def _start(node: Node, container_id: str) -> None:
    timing = Timing("container started")
    container = node.containers.get(container_id)
    if container.status.removing:
        raise FailedPrecondition(f"container {container_id} is being removed")
    if container.state is not State.CREATED:
        raise FailedPrecondition(f"container {container_id} is {container.state}; only a created container can be started")
    if not node.pods.get(container.pod_id).ready:
        raise FailedPrecondition(f"pod {container.pod_id} is not running; run a new one")
    early: list[Exited] = []  # an exit may be told before the start is known to have succeeded
    node.starting[container_id] = early
    try:
        await _open_gate(node, container, timing)
    finally:
        del node.starting[container_id]
        for event in early:
            await record_exit(node, event)
    timing.log(container=container_id)
    folder = restored_from(node.container_dir(container_id))
    if folder:  # its memory has been read
        await node.jobs.job("rmtree", {"paths": [folder]}, timeout=None)


async def _open_gate(node: Node, container: Container, timing: Timing) -> None:
    """Let the process run and note it: what listeners hear of its end comes after what they hear of its start."""
    monitor = node.monitors.get(container.pod_id)
    exchange = node.nri.active
    try:
        if exchange is not None:
            await exchange.start(container.id)
        pid = container.status.pid or await monitor.create(await _late_request(node, container))
        started_at = await monitor.start(container.id)
    except WherryError as error:
        await _failed(node, container.id, error)
        raise
    timing.mark("monitor")
    await node.containers.update(
        container.id, lambda status: dataclasses.replace(status, started_at=started_at, pid=pid), must_persist=False
    )
    timing.mark("commit")
    node.tell(EventKind.STARTED, container.id, container.pod_id)
    exchange = node.nri.active  # one that has joined meanwhile was told of a created container
    if exchange is not None:
        await exchange.started(container.id)


async def _late_request(node: Node, container: Container) -> ContainerCreate:
    directory = node.container_dir(container.id)
    rootfs = await node.images.prepare_rootfs(container.id, container.meta.image_id, directory)
    return create_request(node, container, rootfs)


async def _failed(node: Node, container_id: str, error: WherryError) -> None:
    exit_code, reason = START_ERROR_EXIT_CODE, START_ERROR
    if isinstance(error, StartFailed):
        exit_code, reason = error.exit_code, error.reason or START_ERROR
    now = time.time_ns()

    def change(status: ContainerStatus) -> ContainerStatus:
        return dataclasses.replace(status, finished_at=now, pid=0, exit_code=exit_code, reason=reason, message=str(error))

    announce(node, await node.containers.update(container_id, change, must_persist=False))
