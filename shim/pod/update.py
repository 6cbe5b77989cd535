"""UpdatePodSandboxResources: limits of the cgroup that holds all of a pod."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import structlog

from runtime.apply.cgroup import detect
from runtime.apply.cgroup.group import Cgroup
from runtime.apply.cgroup.scope import Scope
from runtime.errors import RuntimeFault
from runtime.plan.cgroup import cgroup_paths
from runtime.plan.systemd import unit_of
from runtime.spec.parse_resources import parse_resources
from runtime.spec.reader import Reader
from runtime.spec.validate_resources import validate_resources
from shim import wire
from shim.container.bundle import spec_settings
from shim.container.limits import added, merged
from shim.container.spec.resources import linux_resources
from shim.errors import FailedPrecondition
from shim.gen.runtime.v1 import api_pb2
from shim.pod.cgroup import pod_cgroup, scope_of
from shim.pod.rollback import settled
from shim.pod.status import get_pod

if TYPE_CHECKING:
    from shim.gen.runtime.v1.api_pb2 import LinuxContainerResources
    from shim.pod.node import Node
    from shim.store.pods import Pod

log = structlog.get_logger()

CGROUP_SECONDS = 20.0
_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
"""One update of a pod at a time; a lock lives while somebody holds or awaits it."""


async def update_pod_sandbox_resources(
    node: Node, pod_id: str, overhead: LinuxContainerResources, resources: LinuxContainerResources
) -> None:
    """Limit a pod as a whole to `resources`, the sum of its containers, with `overhead` on top; what is 0 stays.

    Raises NotFound, FailedPrecondition when it does not run or uses more already, InvalidArgument for values the kernel
    refuses.
    """
    pod = get_pod(node, pod_id)
    exchange = node.nri.active
    if exchange is not None:
        await exchange.update_pod(pod, overhead, resources)
    lock = _locks.setdefault(pod.id, asyncio.Lock())
    async with lock:
        await settled(_update(node, pod.id, added(resources, overhead)))
    exchange = node.nri.active
    if exchange is not None:
        await exchange.post_update_pod(pod.id)


async def _update(node: Node, pod_id: str, asked: LinuxContainerResources) -> None:
    pod = node.pods.get(pod_id)
    if not pod.ready:
        raise FailedPrecondition(f"pod {pod.id} is not running")
    wanted = merged(api_pb2.LinuxContainerResources.FromString(pod.status.resources), asked)
    document, notes = linux_resources(wanted, node.host, spec_settings(node, pod))
    for note in notes:
        log.info("pod is limited by this host", pod=pod.id, note=note)
    scope = scope_of(node.config.cgroup, pod.config, pod.id)
    await node.in_thread(lambda: _write(pod, scope, document), CGROUP_SECONDS, f"limiting the cgroup of pod {pod.id}")
    kept = wanted.SerializeToString(deterministic=True)
    await node.pods.update(pod.id, lambda status: dataclasses.replace(status, resources=kept))
    log.info("pod updated", pod=pod.id)


def _write(pod: Pod, scope: str, document: dict[str, Any]) -> None:
    path = pod_cgroup(pod.meta.cgroup, pod.config)
    try:
        limits = parse_resources(Reader(document, document="resources"))
        validate_resources(limits, pointer="")
        layout = detect()
        paths = cgroup_paths(layout, path, pod.id)
        cgroup = Scope(unit_of(scope, ""), paths, layout) if scope else Cgroup(paths, layout)
        if not cgroup.exists():
            if not pod.meta.cgroup:
                raise FailedPrecondition(f"cgroup {path} of pod {pod.id} does not exist: who named it has to make it")
            cgroup.create()  # its first container would have made it
        cgroup.apply(limits)
    except RuntimeFault as fault:
        raise wire.error_of(wire.value_of(fault)) from fault
