"""UpdateContainerResources: other limits for a container, in the kernel first, then in its config.json and its row."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import structlog

from shim.container.bundle import spec_settings
from shim.container.limits import merged
from shim.container.spec.resources import linux_resources
from shim.container.status import get_container
from shim.errors import FailedPrecondition, WherryError
from shim.pod.rollback import settled
from shim.store.containers import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.gen.runtime.v1.api_pb2 import LinuxContainerResources
    from shim.pod.node import Node
    from shim.store.containers import Container

log = structlog.get_logger()

FILE_SECONDS = 20.0
_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
"""One update of a container at a time; a lock lives while somebody holds or awaits it."""


async def update_container_resources(
    node: Node, container_id: str, asked: LinuxContainerResources, annotations: Mapping[str, str]
) -> None:
    """Change the limits that `asked` sets; what it leaves at 0 or empty stays.

    The annotations are merged into those of config.json, for runtimes that read them there. Raises NotFound,
    FailedPrecondition for a container that has ended, InvalidArgument for values no controller takes. What fails changes
    nothing. A container that another runtime makes at its start gets its new limits then.
    """
    container = _living(node, get_container(node, container_id).id)
    extra: Mapping[str, Any] = {}
    exchange = node.nri.active
    if exchange is not None:
        asked, extra = await exchange.update(container.id, asked)
    await update_limits(node, container.id, asked, extra, annotations)
    exchange = node.nri.active
    if exchange is not None:
        await exchange.updated(container.id)


async def update_limits(
    node: Node,
    container_id: str,
    asked: LinuxContainerResources,
    extra: Mapping[str, Any],
    annotations: Mapping[str, str] | None = None,
) -> None:
    """Change limits without asking anybody; `extra` are linux.resources for which the CRI has no field."""
    lock = _locks.setdefault(container_id, asyncio.Lock())
    async with lock:
        await settled(_update(node, container_id, asked, extra, annotations or {}))


def _living(node: Node, container_id: str) -> Container:
    container = node.containers.get(container_id)
    if container.state not in (State.CREATED, State.RUNNING) or container.status.removing:
        raise FailedPrecondition(f"container {container.id} is {container.state}; only a living one can be updated")
    return container


async def _update(
    node: Node,
    container_id: str,
    asked: LinuxContainerResources,
    extra: Mapping[str, Any],
    annotations: Mapping[str, str],
) -> None:
    container = _living(node, container_id)
    wanted = merged(container.resources, asked)
    resources = _oci(node, container, wanted)
    for name, values in extra.items():
        resources[name] = {**resources.get(name, {}), **values}
    if container.status.pid:
        await _apply(node, container, resources)
    path = f"{node.container_dir(container.id)}/config.json"
    await node.in_thread(lambda: rewrite(path, resources, annotations), FILE_SECONDS, f"rewriting {path}")
    kept = wanted.SerializeToString(deterministic=True)
    await node.containers.update(container.id, lambda status: dataclasses.replace(status, resources=kept))
    log.info("container updated", pod=container.pod_id, container=container.id)


def _oci(node: Node, container: Container, wanted: LinuxContainerResources) -> dict[str, Any]:
    resources, notes = linux_resources(wanted, node.host, spec_settings(node, node.pods.get(container.pod_id)))
    for note in notes:
        log.info("container is limited by this host", container=container.id, note=note)
    return resources


async def _apply(node: Node, container: Container, resources: dict[str, Any]) -> None:
    """Let the monitor write the limits; when the kernel refuses one, those written before it are taken back."""
    monitor = node.monitors.get(container.pod_id)
    try:
        await monitor.update(container.id, resources)
    except WherryError:
        with contextlib.suppress(WherryError):
            await monitor.update(container.id, _oci(node, container, container.resources))
        raise


def rewrite(path: str, resources: Mapping[str, Any], annotations: Mapping[str, str]) -> None:
    """Merge limits and annotations into a config.json, atomically."""
    with open(path, "rb") as file:
        config = json.load(file)
    limits = config.setdefault("linux", {}).setdefault("resources", {})
    for name, value in resources.items():
        limits[name] = {**limits.get(name, {}), **value} if isinstance(value, dict) else value
    if annotations:
        config["annotations"] = {**config.get("annotations", {}), **annotations}
    scratch = f"{path}.new"
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb", buffering=0) as file:
        file.write(json.dumps(config, separators=(",", ":")).encode())
    os.rename(scratch, path)
