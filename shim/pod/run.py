"""RunPodSandbox: a monitor, namespaces, files, a network."""

from __future__ import annotations

import dataclasses
import os
import secrets
import time
from typing import TYPE_CHECKING

import structlog

from runtime.record import replace
from shim.container.spec.inputs import SpecSettings
from shim.container.spec.security import require_selinux
from shim.container.spec.sysctls import pod_sysctls
from shim.container.spec.validate import validate_pod
from shim.errors import UNDONE, AlreadyExists, InvalidArgument, Unavailable, WherryError
from shim.events import EventKind
from shim.gen.runtime.v1 import api_pb2
from shim.pod.capabilities import capabilities
from shim.pod.cgroup import own_cgroup, scope_of
from shim.pod.features import features_of
from shim.pod.files import remove_pod_files, write_pod_files
from shim.pod.levels import new_level
from shim.pod.namespaces import namespace_request, options
from shim.pod.remove import remove_pod_sandbox
from shim.pod.rollback import Rollback, beside, settled
from shim.pod.timing import Timing
from shim.store.pods import Pod, PodMeta, PodStatus, pod_name

if TYPE_CHECKING:
    from shim.gen.runtime.v1.api_pb2 import PodSandboxConfig
    from shim.monitor.client import MonitorClient
    from shim.pod.network import Attached
    from shim.pod.node import Node

log = structlog.get_logger()


async def run_pod_sandbox(node: Node, config: PodSandboxConfig, runtime_handler: str) -> str:
    """Run a pod and give its id; a repetition of a running or finished call gives the same pod.

    Raises InvalidArgument for a contradictory configuration, AlreadyExists when the name is taken by a different pod, and
    whatever the network's plugins say. Undone completely when it fails or its callers go away.
    """
    handler = _check(node, config, runtime_handler)
    name = pod_name(config.metadata)
    token = (config.SerializeToString(deterministic=True), handler)
    return await node.flights.join(("run", name), lambda: _run_or_find(node, name, config, handler), token=token)


def _check(node: Node, config: PodSandboxConfig, runtime_handler: str) -> str:
    metadata = config.metadata
    if not metadata.name or not metadata.namespace or not metadata.uid:
        raise InvalidArgument("config.metadata must have a name, a namespace and a uid")
    handler = runtime_handler or node.config.runtime.default_handler
    found = node.config.runtime.handler(handler)
    if found is None:
        raise InvalidArgument(f"runtime_handler {handler!r} is not configured: add [runtime.handlers.{handler}]")
    validate_pod(config, features_of(node, handler))
    require_selinux(
        config.linux.security_context.selinux_options,
        "linux.security_context.selinux_options",
        node.host,
        ignored=node.config.runtime.ignore_selinux_options,
    )
    capabilities(config)
    return handler


async def _run_or_find(node: Node, name: str, config: PodSandboxConfig, handler: str) -> str:
    pod = node.pods.named(name)
    if pod is not None and (pod.failed or not pod.status.ready_at):  # no call makes it: its undoing has failed
        await _set_aside(node, pod)
        pod = None
    if pod is None:
        return await _run(node, name, config, handler)
    if pod.ready and pod.meta.handler == handler and pod.config == config:
        return pod.id
    state = "ready" if pod.ready else "stopped"
    raise AlreadyExists(f"pod {name!r} exists as {pod.id}, {state}; remove it or use the next attempt")


async def _set_aside(node: Node, pod: Pod) -> None:
    """Undo what is left of a failed call; what still cannot be undone is kept under another name, out of the next one's way."""
    try:
        await remove_pod_sandbox(node, pod.id)
    except (WherryError, OSError) as error:
        if not pod.failed:
            raise
        log.warning("a pod that failed cannot be removed yet", pod=pod.id, error=str(error))
        name = f"{pod.name}_{pod.id[:12]}"
        await node.pods.rename(pod.id, lambda kept: dataclasses.replace(kept, meta=dataclasses.replace(kept.meta, name=name)))


async def _run(node: Node, name: str, config: PodSandboxConfig, handler: str) -> str:
    timing = Timing("pod started")
    pod = _plan(node, name, config, handler)
    async with Rollback() as rollback:
        rollback.undo("pod row", _forget, node, pod.id)
        await node.pods.add(pod)
        timing.mark("row")
        rollback.undo("pod directory", remove_pod_files, node.pod_dir(pod.id))
        rollback.undo("monitor", node.monitors.stop, pod.id)
        monitor = await settled(node.monitors.start(pod.id))
        timing.mark("monitor")
        rollback.undo("namespaces", monitor.teardown_pod)
        status = await _set_up(node, pod, monitor, rollback, timing)
        ran = dataclasses.replace(pod, status=status)
        rollback.undo("plugins of NRI", node.nri.undo_pod, ran)
        await node.nri.run_pod(ran)
        timing.mark("plugins")
        await node.pods.update(pod.id, lambda _: status)
        timing.mark("commit")
        rollback.pop_all()
    node.nri.pending_pods.pop(pod.id, None)
    node.tell(EventKind.CREATED, pod.id, pod.id)
    node.tell(EventKind.STARTED, pod.id, pod.id)
    timing.log(pod=pod.id)
    return pod.id


def _plan(node: Node, name: str, config: PodSandboxConfig, handler: str) -> Pod:
    pod_id = secrets.token_hex(32)
    networked = options(config).network == api_pb2.POD
    kept = api_pb2.PodSandboxConfig()
    kept.CopyFrom(config)
    meta = PodMeta(
        id=pod_id,
        name=name,
        handler=handler,
        created_at=time.time_ns(),
        netns=f"{node.config.cni.netns_dir}/wherry-{pod_id[:12]}" if networked else "",
        cgroup=own_cgroup(node.config.cgroup, config, pod_id),
        selinux_level=_level(node, config) if node.host.selinux else "",
    )
    status = PodStatus(boot_id=node.boot_id, network="adding" if networked else "")
    return Pod(meta=meta, config=kept, status=status)


def _level(node: Node, config: PodSandboxConfig) -> str:
    """Give what the pod asks for, or a level of its own; the pod is in the store before anybody else can look."""
    asked = config.linux.security_context.selinux_options.level
    return asked or new_level({pod.meta.selinux_level for pod in node.pods})


async def _set_up(node: Node, pod: Pod, monitor: MonitorClient, rollback: Rollback, timing: Timing) -> PodStatus:
    """Make what the pod consists of and give its status."""
    if pod.meta.netns:
        readiness = node.network.readiness()
        if not readiness.ready:
            raise Unavailable(f"pod {pod.name!r}: {readiness.message}")
        os.makedirs(node.config.cni.netns_dir, 0o755, exist_ok=True)
    hostname = pod.config.hostname or node.host.hostname
    sysctls = pod_sysctls(pod.config, SpecSettings())
    request = namespace_request(pod.config, pod.meta.netns, sysctls, hostname)
    request = replace(request, scope=scope_of(node.config.cgroup, pod.config, pod.id))
    namespaces = await beside(
        settled(monitor.setup_pod(request)),
        lambda: write_pod_files(node.pod_dir(pod.id), pod.config, node.host.hostname),
    )
    timing.mark("namespaces and files")
    status = dataclasses.replace(pod.status, ready_at=time.time_ns(), namespaces={**namespaces.paths, "shm": namespaces.shm})
    if pod.meta.netns:
        attached = await _attach(node, pod, rollback)
        timing.mark("network")
        status = dataclasses.replace(
            status, network="added", network_name=attached.name, ips=attached.ips, cni_result=attached.result
        )
    return status


async def _attach(node: Node, pod: Pod, rollback: Rollback) -> Attached:
    """Run ADD; where it has failed and says that nothing is left of it, there is nothing to undo."""
    needed = True

    async def undo() -> None:
        if needed:
            await _detach(node, pod)

    rollback.undo("network", undo)
    try:
        return await node.network.attach(pod)
    except WherryError as error:
        needed = not error.details.get(UNDONE)
        raise


async def _detach(node: Node, pod: Pod) -> None:
    """Run DEL; when even that fails the pod is kept, stopped, so that its removal can try again: no address is forgotten."""
    try:
        await node.network.detach(pod)
    except BaseException:
        now = time.time_ns()
        await node.pods.update(pod.id, lambda status: dataclasses.replace(status, ready_at=now, stopped_at=now))
        raise


async def _forget(node: Node, pod_id: str) -> None:
    pod = node.pods.find(pod_id)
    if pod is None or pod.status.stopped_at:
        return
    await node.pods.remove(pod_id)
