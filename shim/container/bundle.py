"""A container's bundle: config.json and an empty rootfs, and the order to the monitor that makes a container of it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from shim.container.spec.build import build
from shim.container.spec.inputs import HandlerFeatures, SpecInputs, SpecSettings
from shim.container.spec.layers import LayeredRootfs
from shim.container.spec.sources import gather_sources
from shim.container.spec.users import resolve_user
from shim.errors import FailedPrecondition, InvalidArgument
from shim.gen.runtime.v1 import api_pb2
from shim.monitor.protocol import ContainerCreate, RootfsMount
from shim.pod.cgroup import default_parent
from shim.pod.files import pod_files, write_file
from shim.pod.namespaces import options
from shim.store.containers import State

if TYPE_CHECKING:
    from shim.container.spec.inputs import ResolvedUser
    from shim.gen.runtime.v1.api_pb2 import ContainerConfig
    from shim.image.record import ImageRecord, RootfsSpec
    from shim.pod.node import Node
    from shim.store.containers import Container
    from shim.store.pods import Pod

log = structlog.get_logger()

HOST_PATH_SECONDS = 20.0
"""Time the file systems of the mounted host paths have to answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What was written."""

    config_json: bytes
    user: ResolvedUser
    notes: tuple[str, ...]


async def prepare_bundle(node: Node, pod: Pod, container: Container, image: ImageRecord) -> Bundle:
    """Look at the host, resolve the user, build config.json and write the bundle; raise what those steps raise."""
    target = _target_pid_path(node, pod, container.config)
    layers = node.images.layer_paths(image.id)
    bundle = await node.in_thread(
        lambda: _prepare(node, pod, container, image, (layers, target)),
        HOST_PATH_SECONDS,
        f"looking at the host paths of container {container.name}",
    )
    for note in bundle.notes:
        log.info("container is limited by this host", container=container.id, note=note)
    return bundle


def _prepare(node: Node, pod: Pod, container: Container, image: ImageRecord, extra: tuple[tuple[str, ...], str]) -> Bundle:
    layers, target = extra
    config = container.config
    sources = gather_sources(config)
    user = resolve_user(LayeredRootfs(layers), config.linux.security_context, image.config.user)
    handler = node.config.runtime.handler(pod.meta.handler)
    shm = "/dev/shm" if options(pod.config).ipc == api_pb2.NODE else pod.status.namespaces.get("shm", "")  # noqa: S108 - the node's
    built = build(
        SpecInputs(
            container_id=container.id,
            pod_id=pod.id,
            config=config,
            pod=pod.config,
            image=image.config,
            image_name=config.image.user_specified_image or config.image.image,
            user=user,
            host=node.host,
            sources=sources,
            pod_namespaces={kind: path for kind, path in pod.status.namespaces.items() if kind != "shm"},
            pod_files=pod_files(node.pod_dir(pod.id), shm),
            target_pid_path=target,
            features=HandlerFeatures(
                recursive_read_only_mounts=handler is not None and handler.recursive_read_only_mounts,
                user_namespaces=handler is not None and handler.user_namespaces,
            ),
            settings=spec_settings(node, pod),
        )
    )
    for directory in sources.ensure_dirs:
        os.makedirs(directory, 0o755, exist_ok=True)
    if container.meta.log_path:
        os.makedirs(os.path.dirname(container.meta.log_path), 0o755, exist_ok=True)
    text = json.dumps(built.config, separators=(",", ":")).encode()
    _write(node.container_dir(container.id), text)
    return Bundle(config_json=text, user=user, notes=built.notes)


def spec_settings(node: Node, pod: Pod) -> SpecSettings:
    """Give the daemon's settings for the specs of one pod."""
    cgroup = node.config.cgroup
    return SpecSettings(systemd_cgroup=cgroup.driver == "systemd", cgroup_parent=default_parent(cgroup, pod.meta.cgroup))


def _write(directory: str, config_json: bytes) -> None:
    os.makedirs(f"{directory}/rootfs", 0o711, exist_ok=True)
    write_file(f"{directory}/config.json", config_json, 0o600)


def create_request(node: Node, container: Container, rootfs: RootfsSpec) -> ContainerCreate:
    """Give the order to the monitor."""
    config = container.config
    return ContainerCreate(
        container_id=container.id,
        bundle=node.container_dir(container.id),
        state_root=node.oci_root,
        handler=container.meta.handler,
        rootfs=RootfsMount(lower=list(rootfs.lower), upper=rootfs.upper or "", work=rootfs.work or ""),
        terminal=config.tty,
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        log_path=container.meta.log_path,
        systemd_cgroup=node.config.cgroup.driver == "systemd",
    )


def _target_pid_path(node: Node, pod: Pod, config: ContainerConfig) -> str:
    modes = config.linux.security_context.namespace_options
    if modes.pid != api_pb2.TARGET:
        return ""
    target = node.containers.get(modes.target_id)
    if target.pod_id != pod.id:
        raise InvalidArgument(f"namespace_options.target_id {modes.target_id!r} is a container of another pod")
    if target.state is not State.RUNNING:
        raise FailedPrecondition(f"namespace_options.target_id {modes.target_id!r} is not running")
    return f"/proc/{target.status.pid}/ns/pid"
