"""What the monitors tell: a container's end, an OOM kill."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import structlog

from shim.errors import NotFound
from shim.events import EventKind
from shim.monitor.protocol import Exited, LogLost, Oom

if TYPE_CHECKING:
    from shim.pod.node import Node
    from shim.store.containers import Container, ContainerStatus

log = structlog.get_logger()

LOST_EXIT_CODE = 255
"""Exit code of a container whose end nobody saw."""
KILLED = 137
"""Exit code of a container that was stopped before it ever ran."""


def reason_of(exit_code: int, *, oom_killed: bool) -> str:
    """Give the reason kubelet shows for an end."""
    if oom_killed:
        return "OOMKilled"
    return "Completed" if exit_code == 0 else "Error"


def ended(status: ContainerStatus, event: Exited) -> ContainerStatus:
    """Give the status after an end; one that is known already stays."""
    if status.finished_at:
        return status
    oom_killed = event.oom_killed or status.reason == "OOMKilled"
    return dataclasses.replace(
        status,
        finished_at=event.exited_at_ns,
        exit_code=event.exit_code,
        reason=reason_of(event.exit_code, oom_killed=oom_killed),
        unknown=False,
    )


def lost(status: ContainerStatus) -> ContainerStatus:
    """Give the status of a container that is gone without an exit record: after a reboot, or with its monitor."""
    if status.finished_at:
        return status
    return dataclasses.replace(
        status,
        finished_at=time.time_ns(),
        exit_code=LOST_EXIT_CODE,
        reason="Unknown" if status.started_at else "Error",
        message="the node or the pod's monitor stopped while the container existed",
        unknown=False,
    )


def never_ran(status: ContainerStatus) -> ContainerStatus:
    """Give the status of a container that was stopped before a process of it was made."""
    if status.finished_at or status.started_at:
        return status
    return dataclasses.replace(status, finished_at=time.time_ns(), exit_code=KILLED, reason="Error")


async def on_event(node: Node, pod_id: str, event: Exited | Oom | LogLost) -> None:
    """Take an event of a pod's monitor into the status of its container."""
    if isinstance(event, LogLost):
        log.warning("log lines of a container were lost", pod=pod_id, container=event.container_id, reason=event.reason)
        return
    if isinstance(event, Oom):
        log.info("out of memory in a container", pod=pod_id, container=event.container_id, kills=event.count)
        return
    if event.container_id in node.containers:
        await record_exit(node, event)


async def record_exit(node: Node, event: Exited) -> None:
    """Note that a container's init has ended, and wake whoever waits for it.

    The end of a container that is just being started is kept for StartContainer, which tells of it after the start.
    """
    early = node.starting.get(event.container_id)
    if early is not None:
        early.append(event)
        return
    try:
        container = await node.containers.update(event.container_id, lambda status: ended(status, event), must_persist=False)
    except NotFound:
        return
    announce(node, container)


def announce(node: Node, container: Container) -> None:
    """Wake those who wait for the container's end, and tell listeners, once."""
    ended = node.exit_event(container.id)
    if not container.status.finished_at or ended.is_set():
        return
    ended.set()
    node.nri.exited(container.id)
    node.tell(EventKind.STOPPED, container.id, container.pod_id)
    log.info(
        "container exited",
        pod=container.pod_id,
        container=container.id,
        exit_code=container.status.exit_code,
        reason=container.status.reason,
    )
