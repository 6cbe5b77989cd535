"""Recovery at start: what the rows say, what the monitors say, and what is there without either.

Never fatal: what cannot be recovered is reported, marked and cleaned, and the daemon serves the rest. A pod whose monitor
answers goes on as if nothing had happened. After a reboot every pod is NOTREADY, its containers have exited, and its
addresses are freed by a DEL without a namespace.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from shim.container.cleanup import remove_container_dir
from shim.container.exits import announce, ended, lost
from shim.container.remove import remove_container
from shim.errors import Unavailable
from shim.monitor.protocol import Exited
from shim.pod.lost import pod_lost
from shim.pod.remove import remove_pod_sandbox
from shim.pod.sweep import sweep
from shim.store import meta
from shim.store.containers import State

if TYPE_CHECKING:
    from shim.monitor.protocol import ExitRecord, MonitorContainer
    from shim.pod.node import Node
    from shim.store.containers import Container, ContainerStatus
    from shim.store.pods import Pod

log = structlog.get_logger()

PARALLEL = 16
"""Pods recovered at once."""
CONNECT_SECONDS = 10.0


def read_boot_id() -> str:
    """Give the id of this boot (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


async def recover(node: Node) -> None:
    """Load the stores and bring them to agree with the node."""
    for store, kind in ((node.pods, "pod"), (node.containers, "container")):
        for item_id, error in store.load():
            log.error("a row is damaged and was left alone", kind=kind, id=item_id, error=error)
    await node.database.write(lambda connection: meta.put(connection, "boot_id", node.boot_id))
    limit = asyncio.Semaphore(PARALLEL)
    await asyncio.gather(*(_guarded(node, pod, limit) for pod in node.pods))
    for container in node.containers:
        if container.pod_id not in node.pods:
            await _try("container of a pod that is gone", remove_container(node, container.id))
    await _try("orphans", sweep(node))
    await _try("network attachments that no pod has any more", node.network.collect(node.pods))
    log.info("recovered", pods=len(node.pods), containers=len(node.containers))


async def _guarded(node: Node, pod: Pod, limit: asyncio.Semaphore) -> None:
    async with limit:
        await _try(f"pod {pod.id}", _recover_pod(node, pod))


async def _try(what: str, step: Any) -> None:
    try:
        await step
    except Exception:
        log.exception("recovery of a part failed", part=what)


async def _recover_pod(node: Node, pod: Pod) -> None:
    known = await _reconnect(node, pod) if pod.status.boot_id == node.boot_id else None
    await _reconcile(node, pod, known)
    if not pod.status.ready_at or pod.status.removing:
        log.info("undoing a pod that was not finished", pod=pod.id, removing=pod.status.removing)
        await remove_pod_sandbox(node, pod.id)
        return
    for container in node.containers.of_pod(pod.id):
        if container.state is State.CREATING or container.status.removing:
            log.info("undoing a container that was not finished", pod=pod.id, container=container.id)
            await _try(f"container {container.id}", _undo(node, container))
    if known is None and not pod.status.stopped_at:
        await (pod_lost(node, pod.id) if pod.status.boot_id == node.boot_id else _rebooted(node, pod))


async def _reconnect(node: Node, pod: Pod) -> dict[str, MonitorContainer] | None:
    """Give what the pod's monitor knows, None when there is no monitor."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            monitor = await node.monitors.connect(pod.id)
            return {one.id: one for one in await monitor.containers()}
    except (Unavailable, TimeoutError, OSError) as error:
        if not pod.status.stopped_at:
            log.warning("the monitor of a pod is gone", pod=pod.id, error=str(error))
        return None


async def _rebooted(node: Node, pod: Pod) -> None:
    """Note that a pod of an earlier boot does not run, and free its addresses."""
    now = time.time_ns()
    await node.pods.update(pod.id, lambda status: dataclasses.replace(status, stopped_at=now, namespaces={}))
    log.warning("pod did not survive the reboot", pod=pod.id, name=pod.name)
    if pod.status.network:
        await node.network.detach(pod)
        await node.pods.update(pod.id, lambda status: dataclasses.replace(status, network=""))


async def _reconcile(node: Node, pod: Pod, known: dict[str, MonitorContainer] | None) -> None:
    """Bring the containers of a pod to agree with its monitor (None: there is none) and the exit records."""
    gone = pod.status.boot_id != node.boot_id or known is not None
    for container in node.containers.of_pod(pod.id):
        record = _exit_record(node, pod, container.id)
        view = (known or {}).get(container.id)
        # Some containers are made at their start only (see create): no monitor can know them yet.
        late = container.state is State.CREATED and not container.status.pid and known is not None
        change = partial(_merge, view=view, record=record, gone=gone and view is None and not late)
        changed = await node.containers.update(container.id, change)
        if changed.status.finished_at and not container.status.finished_at:
            announce(node, changed)


def _merge(status: ContainerStatus, *, view: MonitorContainer | None, record: Exited | None, gone: bool) -> ContainerStatus:
    """Give the status that agrees with what the monitor and the exit record say; `gone`: nobody knows the container."""
    if view is not None and view.started_at_ns and not status.started_at:
        status = dataclasses.replace(status, started_at=view.started_at_ns, pid=view.pid)
    if view is not None and view.exit is not None:
        return ended(status, exited(view.exit))
    if record is not None:
        return ended(status, record)
    return lost(status) if gone and status.created_at else status


def exited(record: ExitRecord) -> Exited:
    """Give the event that an exit record stands for."""
    return Exited(
        container_id=record.id,
        pid=record.pid,
        exit_code=record.exit_code,
        signal=max(record.exit_code - 128, 0),
        oom_killed=record.oom_killed,
        exited_at_ns=record.exited_at_ns,
    )


def _exit_record(node: Node, pod: Pod, container_id: str) -> Exited | None:
    """Read the exit record a monitor has left, also when the monitor is gone."""
    path = f"{node.monitors.directory(pod.id)}/exits/{container_id}.json"
    try:
        with open(path, "rb") as file:
            record = json.loads(file.read(1 << 16))
        return Exited(
            container_id=container_id,
            pid=int(record["pid"]),
            exit_code=int(record["exit_code"]),
            signal=max(int(record["exit_code"]) - 128, 0),
            oom_killed=bool(record.get("oom_killed", False)),
            exited_at_ns=int(record["exited_at_ns"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("an exit record cannot be read", path=path, error=str(error))
        return None


async def _undo(node: Node, container: Container) -> None:
    await remove_container(node, container.id)
    await remove_container_dir(node, container.id)
