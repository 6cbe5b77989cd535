"""Remove what is there without a row: monitors, directories, pins, cgroups of pods and containers that nobody knows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from shim.container.cleanup import remove_container_dir
from shim.errors import WherryError
from shim.pod.cgroup import list_cgroups, remove_cgroup
from shim.pod.files import remove_pod_files

if TYPE_CHECKING:
    from shim.pod.node import Node

log = structlog.get_logger()


async def sweep(node: Node) -> None:
    """Remove all orphans; each failure is logged and the next is tried."""
    for pod_id in _orphans(f"{node.config.state}/pods", node.pods):
        log.warning("removing a monitor without a pod", pod=pod_id)
        await _remove_monitor(node, pod_id)
    for pod_id in _orphans(f"{node.config.root}/pods", node.pods):
        log.warning("removing files without a pod", pod=pod_id)
        await remove_pod_files(node.pod_dir(pod_id))
    rooted = [container_id for container_id in node.images.rootfs_containers() if container_id not in node.containers]
    mounted = _orphans(f"{node.config.state}/roots", node.containers)
    for container_id in {*rooted, *mounted, *_orphans(f"{node.config.root}/containers", node.containers)}:
        log.warning("removing files without a container", container=container_id)
        await remove_container_dir(node, container_id)
    _remove_cgroups(node)


async def _remove_monitor(node: Node, pod_id: str) -> None:
    try:
        monitor = await node.monitors.ensure(pod_id)
        await monitor.teardown_pod()
    except (WherryError, OSError) as error:
        log.error("a monitor without a pod could not be cleaned", pod=pod_id, error=str(error))  # noqa: TRY400 - one line
    await node.monitors.stop(pod_id)


def _remove_cgroups(node: Node) -> None:
    """Remove empty pod cgroups; those of another daemon with the same parent have processes, and stay."""
    if node.config.cgroup.driver != "cgroupfs":
        return
    parent = node.config.cgroup.parent.rstrip("/")
    for name in list_cgroups(parent):
        if is_id(name) and name not in node.pods:
            remove_cgroup(f"{parent}/{name}")


def _orphans(directory: str, known: object) -> list[str]:
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return [name for name in names if is_id(name) and name not in known]  # type: ignore[operator]  # a store


def is_id(name: str) -> bool:
    """Say whether a name is one of our ids."""
    return len(name) == 64 and all(digit in "0123456789abcdef" for digit in name)
