"""StopContainer: the stop signal, a time of grace, SIGKILL to everything."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import structlog

from shim.container.exits import announce, lost, never_ran
from shim.errors import DeadlineExceeded, NotFound, Unavailable
from shim.store.containers import State

if TYPE_CHECKING:
    from shim.pod.node import Node
    from shim.store.containers import Container

log = structlog.get_logger()

LIVE = frozenset({State.CREATED, State.RUNNING, State.UNKNOWN})


async def stop_container(node: Node, container_id: str, grace: float) -> None:
    """Stop a container within `grace` seconds, then kill it; harmless for one that is unknown or has ended.

    Calls are not joined: a second one with less grace kills at once. Raises DeadlineExceeded when the kernel cannot end the
    process, naming the state it hangs in.
    """
    container = node.containers.find(container_id)
    if container is None or container.state not in LIVE:
        return
    await stop(node, container, grace)
    exchange = node.nri.active
    if exchange is not None:
        await exchange.stopped(container.id)


async def stop(node: Node, container: Container, grace: float) -> None:
    """Stop a living container."""
    if container.state is State.CREATED and not container.status.pid and container.id not in node.starting:
        announce(node, await node.containers.update(container.id, never_ran))  # its process is made at its start only
        return
    try:
        monitor = node.monitors.get(container.pod_id)
    except Unavailable:
        monitor = await node.monitors.ensure(container.pod_id)
    exited = node.exit_event(container.id)
    if container.state is State.RUNNING and grace > 0:
        try:
            await monitor.kill(container.id, container.meta.stop_signal)
        except NotFound:
            await _gone(node, container.id)
            return
        if await _wait(exited, grace):
            return
        log.info("container did not stop in time", container=container.id, grace=grace)
    try:
        await monitor.kill(container.id, signal.SIGKILL, all_processes=True)
    except NotFound:
        await _gone(node, container.id)
        return
    limit = node.config.limits.stop_timeout
    if not await _wait(exited, limit):
        pid = container.status.pid
        raise DeadlineExceeded(
            f"container {container.id} was killed {limit:g} s ago and its process {pid} is still there: {process_state(pid)}"
        )


async def _gone(node: Node, container_id: str) -> None:
    """Give the exit of a container that its monitor does not know the chance to arrive; else it was lost."""
    if not await _wait(node.exit_event(container_id), 1.0) and container_id in node.containers:
        announce(node, await node.containers.update(container_id, lost))


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def process_state(pid: int) -> str:
    """Say what a process hangs in (proc(5), wchan), for an error message."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            state = file.read().rpartition(")")[2].split()[0]
        with open(f"/proc/{pid}/wchan", encoding="ascii", errors="replace") as file:
            place = file.read() or "unknown"
    except (OSError, IndexError):
        return "it cannot be looked at"
    return f"state {state} in {place}" + (", waiting for a device or a file server" if state == "D" else "")
