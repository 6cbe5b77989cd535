"""CreateContainer: a row, a root filesystem, a bundle, a process that waits at the gate."""

from __future__ import annotations

import dataclasses
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from shim.container.bundle import BundleOrder, create_request, prepare_bundle
from shim.container.cleanup import remove_container_dir
from shim.container.image_volumes import prepare_image_volumes, with_image_ids
from shim.container.remove import remove_container
from shim.container.replay import replay_command
from shim.container.restore import find_checkpoint, place_checkpoint
from shim.container.spec.paths import container_log_path
from shim.container.spec.signals import parse_signal, stop_signal
from shim.container.spec.validate import validate_container
from shim.container.volumes import prepare_volumes
from shim.errors import AlreadyExists, FailedPrecondition, ResourceExhausted, WherryError
from shim.events import EventKind
from shim.gen.runtime.v1 import api_pb2
from shim.monitor.protocol import StartFailed
from shim.pod.rollback import Rollback, settled
from shim.pod.timing import Timing
from shim.store.containers import Container, ContainerMeta, ContainerStatus, State, container_name

if TYPE_CHECKING:
    from shim.config import HandlerConfig
    from shim.container.bundle import Bundle
    from shim.container.restore import CheckpointSource, Given
    from shim.gen.runtime.v1.api_pb2 import ContainerConfig
    from shim.image.record import ImageRecord
    from shim.monitor.protocol import ContainerCreate
    from shim.pod.node import Node
    from shim.store.pods import Pod

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What was asked for, resolved and checked."""

    pod: Pod
    name: str
    config: ContainerConfig
    image: ImageRecord
    handler: HandlerConfig
    checkpoint: CheckpointSource | None = None


async def create_container(node: Node, pod_id: str, config: ContainerConfig, checkpoint: Given | None = None) -> str:
    """Create a container in a pod and give its id; a repetition of a running or finished call gives the same container.

    Raises NotFound for an unknown pod or image, FailedPrecondition in a stopped pod, InvalidArgument naming the field,
    AlreadyExists when the name is taken by a different container. Undone completely when it fails or its callers go away.
    With `checkpoint`, or where the image is one, the container's start restores what was saved.
    """
    pod = node.pods.get(pod_id)
    order = await _check(node, pod, config, checkpoint)
    token = config.SerializeToString(deterministic=True)
    return await node.flights.join(("create", order.name), lambda: _create_or_find(node, order), token=token)


async def _check(node: Node, pod: Pod, config: ContainerConfig, checkpoint: Given | None) -> Order:
    if not pod.ready:
        raise FailedPrecondition(f"pod {pod.id} is not running; run a new one")
    validate_container(config, pod.config)
    config = with_image_ids(node, config)
    handler = node.config.runtime.handler(pod.meta.handler)
    if handler is None:
        raise FailedPrecondition(f"runtime handler {pod.meta.handler!r} of pod {pod.id} is not configured any more")
    source = await find_checkpoint(node, config, checkpoint)
    if source is not None and "user" in pod.status.namespaces:
        raise FailedPrecondition(f"pod {pod.id} has a user namespace: criu cannot restore into it; run the pod without one")
    return Order(
        pod=pod,
        name=container_name(config.metadata, pod.id),
        config=config,
        image=node.images.resolve(config.image.image) if source is None else source.image,
        handler=handler,
        checkpoint=source,
    )


async def _create_or_find(node: Node, order: Order) -> str:
    container = node.containers.named(order.name)
    if container is not None and container.state is State.CREATING:  # no call makes it: its undoing has failed
        await remove_container(node, container.id)
        container = None
    if container is None:
        return await _create(node, order)
    if container.state is State.CREATED and container.config == order.config:
        return container.id
    raise AlreadyExists(
        f"container {order.name!r} exists as {container.id}, {container.state}; remove it or use the next attempt"
    )


async def _create(node: Node, order: Order) -> str:
    timing = Timing("container created")
    container = _plan(order)
    bundle: Bundle | None = None
    layers = node.images.layer_paths(order.image.id)
    async with Rollback() as rollback:
        try:
            rollback.undo("container row", node.containers.remove, container.id)
            await node.containers.add(container)
            timing.mark("row")
            rollback.undo("container directory", remove_container_dir, node, container.id)
            directory = node.container_dir(container.id)
            rootfs = await node.images.prepare_rootfs(container.id, order.image.id, directory)
            timing.mark("rootfs")
            if order.checkpoint is not None:
                await place_checkpoint(node, container.id, rootfs.upper, order.checkpoint)
            volumes = await prepare_volumes(node, container, order.image, rootfs.lower)
            image_mounts = await prepare_image_volumes(node, container)
            rollback.undo("plugins of NRI", node.nri.undo_container, container.id)
            bundle = await prepare_bundle(
                node,
                BundleOrder(
                    pod=order.pod,
                    container=container,
                    image=order.image,
                    layers=layers,
                    volumes=volumes,
                    image_mounts=image_mounts,
                ),
            )
            timing.mark("bundle")
            request = create_request(node, container, rootfs, bundle.config_json)
            pid = await _hand_over(node, order, request, rollback)
            timing.mark("monitor")
            await _commit(node, container, bundle, pid)
            timing.mark("commit")
        except Exception as error:
            if bundle is not None:
                command = replay_command(container.id, bundle.config_json, layers)
                log.warning("create failed", container=container.id, error=str(error), replay=command)
            raise
        rollback.pop_all()
    node.nri.pending_containers.pop(container.id, None)
    exchange = node.nri.active
    if exchange is not None:
        await exchange.created(container.id)
    node.tell(EventKind.CREATED, container.id, container.pod_id)
    timing.log(container=container.id)
    return container.id


def _plan(order: Order) -> Container:
    kept = api_pb2.ContainerConfig()
    kept.CopyFrom(order.config)
    meta = ContainerMeta(
        id=secrets.token_hex(32),
        name=order.name,
        pod_id=order.pod.id,
        created_at=time.time_ns(),
        image_id=order.image.id,
        handler=order.handler.path,
        log_path=container_log_path(order.config, order.pod.config),
        stop_signal=parse_signal(stop_signal(order.config, order.image.config.stop_signal)),
    )
    return Container(meta=meta, config=kept, status=ContainerStatus())


async def _hand_over(node: Node, order: Order, request: ContainerCreate, rollback: Rollback) -> int:
    """Let the monitor create the container; another runtime's binary does so at start, where kubelet expects its refusals.

    So does a checkpoint, whose processes would not wait, and our own once it has found that the command cannot be executed:
    StartContainer asks again, and tells.
    """
    monitor = node.monitors.get(order.pod.id)
    rollback.undo("container process", monitor.delete, request.container_id)
    if order.handler.path or order.checkpoint is not None:
        return 0
    try:
        return await settled(monitor.create(request))
    except StartFailed:
        return 0
    except WherryError as error:
        limit = order.config.linux.resources.memory_limit_in_bytes
        if limit and error.details.get("fault", {}).get("kind") == "protocol":  # a process of ours ended without a word
            raise ResourceExhausted(
                f"the first process of container {order.name!r} was ended while it was made, it seems by its memory limit of "
                f"{limit} bytes; raise linux.resources.memory_limit_in_bytes"
            ) from error
        raise


async def _commit(node: Node, container: Container, bundle: Bundle, pid: int) -> None:
    if not node.pods.get(container.pod_id).ready:
        raise FailedPrecondition(f"pod {container.pod_id} was stopped while container {container.name} was being created")
    now = time.time_ns()
    user = bundle.user

    def change(status: ContainerStatus) -> ContainerStatus:
        return dataclasses.replace(status, created_at=now, pid=pid, uid=user.uid, gid=user.gid, groups=tuple(user.groups))

    await node.containers.update(container.id, change)
