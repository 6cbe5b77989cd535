"""A container's bundle: config.json and an empty rootfs, and the order to the monitor that makes a container of it."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import structlog

from shim.cdi.names import wanted_devices
from shim.config import HandlerConfig
from shim.container.alone import cgroup_alone
from shim.container.apparmor import load_profile
from shim.container.restore import restore_options, restored_from
from shim.container.spec import look
from shim.container.spec.build import build
from shim.container.spec.image_mounts import FAILED, placed
from shim.container.spec.inputs import SpecInputs, SpecSettings
from shim.container.spec.layers import LayeredRootfs
from shim.container.spec.paths import log_directory
from shim.container.spec.relabel import Relabelling, relabelling
from shim.container.spec.security import DefaultProfileMissing
from shim.container.spec.sources import sources_of, wanted
from shim.container.spec.users import resolve_user
from shim.errors import FailedPrecondition, InvalidArgument
from shim.gen.runtime.v1 import api_pb2
from shim.monitor.protocol import ContainerCreate, RootfsMount
from shim.pod.features import features_of
from shim.pod.files import pod_files, write_file
from shim.pod.namespaces import options
from shim.pod.rollback import settled
from shim.store.containers import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.container.spec.host import HostSources
    from shim.container.spec.inputs import ResolvedUser
    from shim.gen.runtime.v1.api_pb2 import ContainerConfig
    from shim.image.record import ImageRecord, RootfsSpec
    from shim.pod.node import Node
    from shim.store.containers import Container
    from shim.store.pods import Pod

log = structlog.get_logger()

HOST_PATH_SECONDS = 20.0
"""Time the file systems of the mounted host paths have to answer."""
RELABEL_SECONDS = 110.0
"""Time for the labels of a container's volumes, within kubelet's two minutes; the next attempt goes on from there."""
WRITE_SECONDS = 60.0
"""Time the node's own disk has to take the bundle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleOrder:
    """What a bundle is made of: `layers` are the image's, topmost first; `volumes` host directories by container path."""

    pod: Pod
    container: Container
    image: ImageRecord
    layers: tuple[str, ...]
    volumes: Mapping[str, str]
    image_mounts: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    @property
    def config(self) -> ContainerConfig:
        """The container's config with host paths where it mounts images."""
        return placed(self.container.config, self.image_mounts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What is to be written: config.json, and directories on the host that mounts and the log need."""

    config_json: bytes
    rootfs: str
    user: ResolvedUser
    directories: tuple[str, ...]
    log: tuple[str, str] | None
    """The pod's log directory, and the folders in it that the container's log needs."""
    notes: tuple[str, ...]
    relabelling: Relabelling


async def prepare_bundle(node: Node, order: BundleOrder) -> Bundle:
    """Look at the host, resolve the user, build config.json and write the bundle; raise what those steps raise.

    Everything is looked at first and written last, in a section that is waited for even when the caller is cancelled:
    nothing is made after the call has been undone.
    """
    try:
        bundle, remote = await _look_and_build(node, order)
    except DefaultProfileMissing as missing:
        problem = await load_profile(node)
        if problem and missing.asked:
            raise FailedPrecondition(f"linux.security_context.apparmor asks for RuntimeDefault: {problem}") from missing
        bundle, remote = await _look_and_build(node, order)
    config_json = await node.nri.create_container(order.pod, order.container, bundle.config_json)
    bundle = dataclasses.replace(bundle, config_json=config_json)
    if remote:
        what = f"making the directories that container {order.container.name} mounts"
        params = {"action": "make", "directories": list(bundle.directories), "log": bundle.log}
        await node.in_job("hostpaths", params, HOST_PATH_SECONDS, what)
    what = f"writing the bundle of container {order.container.name}"
    await settled(node.in_thread(lambda: _write(node, order, bundle, made=remote), WRITE_SECONDS, what))
    if bundle.relabelling.trees:
        what = f"labelling the volumes of container {order.container.name}"
        await node.in_job("relabel", dataclasses.asdict(bundle.relabelling), RELABEL_SECONDS, what)
    for note in bundle.notes:
        log.info("container is limited by this host", container=order.container.id, note=note)
    return bundle


async def _look_and_build(node: Node, order: BundleOrder) -> tuple[Bundle, bool]:
    """Give the bundle, and whether a job had to look because a path may lie on a file system that hangs."""
    what = f"looking at the host paths of container {order.container.name}"
    target = _target_pid_path(node, order.pod, order.container.config)
    settings = spec_settings(node, order.pod)
    look_at = wanted(order.config, settings.unset_seccomp_profile, settings.default_seccomp_profile)
    bundle = await node.in_thread(lambda: _build_here(node, order, target, look_at), HOST_PATH_SECONDS, what)
    if bundle is not None:
        return bundle, False
    found = await node.in_job("hostpaths", {"action": "look", **look_at}, HOST_PATH_SECONDS, what)
    bundle = await node.in_thread(lambda: _build(node, order, target, sources_of(found)), HOST_PATH_SECONDS, what)
    return bundle, True


def _build_here(node: Node, order: BundleOrder, target: str, look_at: dict[str, Any]) -> Bundle | None:
    """Build it with what this thread can see; None where a path may lie on a file system that hangs."""
    if (look_at["mounts"] or look_at["devices"] or look_at["seccomp"]) and look.may_hang():
        return None
    return _build(node, order, target, sources_of(look.look(look_at)))


def _build(node: Node, order: BundleOrder, target: str, sources: HostSources) -> Bundle:
    """Give the bundle, from local files only; writes nothing."""
    pod, container, image = order.pod, order.container, order.image
    config = order.config
    user = resolve_user(LayeredRootfs(order.layers), config.linux.security_context, image.config.user)
    shm = "/dev/shm" if options(pod.config).ipc == api_pb2.NODE else pod.status.namespaces.get("shm", "")  # noqa: S108 - the node's
    inputs = SpecInputs(
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
        image_volumes=order.volumes,
        image_mounts=order.image_mounts,
        features=features_of(node, pod.meta.handler),
        annotations=_handed_on(node, pod, config),
        rootfs=_rootfs(node, order),
        settings=spec_settings(node, pod),
    )
    built = build(inputs)
    devices = wanted_devices((device.name for device in config.CDI_devices), config.annotations)
    if devices:
        node.cdi.inject(built.config, devices)
    return Bundle(
        config_json=json.dumps(built.config, separators=(",", ":")).encode(),
        rootfs=inputs.rootfs,
        user=user,
        directories=sources.ensure_dirs,
        log=_log_folders(container.meta.log_path, log_directory(pod.config)),
        notes=built.notes,
        relabelling=relabelling(inputs),
    )


def _rootfs(node: Node, order: BundleOrder) -> str:
    """Say where the root is mounted. Another binary's container with a user namespace has to reach it as nobody of the host."""
    if "user" not in order.pod.status.namespaces or not order.container.meta.handler:
        return "rootfs"
    if any(len(layers) > 1 for layers in order.image_mounts.values()):
        handler = order.pod.meta.handler
        raise InvalidArgument(f"{FAILED}: runtime handler {handler} mounts no image of several layers in a user namespace")
    return node.mounted_root(order.container.id)


def _log_folders(path: str, directory: str) -> tuple[str, str] | None:
    return (directory, os.path.dirname(os.path.relpath(path, directory))) if path else None


def _write(node: Node, order: BundleOrder, bundle: Bundle, *, made: bool) -> None:
    if not made:
        look.make(list(bundle.directories), bundle.log)
    directory = node.container_dir(order.container.id)
    os.makedirs(f"{directory}/rootfs", 0o711, exist_ok=True)
    if bundle.rootfs != "rootfs":
        os.makedirs(bundle.rootfs, 0o711, exist_ok=True)
    write_file(f"{directory}/config.json", bundle.config_json, 0o600)


def spec_settings(node: Node, pod: Pod) -> SpecSettings:
    """Give the daemon's settings for the specs of one pod."""
    runtime = node.config.runtime
    handler = runtime.handler(pod.meta.handler) or HandlerConfig()
    return SpecSettings(
        pod_cgroup=pod.meta.cgroup,
        cgroup_writable=handler.cgroup_writable,
        unset_seccomp_profile=runtime.unset_seccomp_profile,
        default_seccomp_profile=handler.seccomp_profile,
        device_ownership_from_security_context=runtime.device_ownership_from_security_context,
        privileged_without_host_devices=handler.privileged_without_host_devices,
        selinux_level=pod.meta.selinux_level,
        apparmor_problem=node.apparmor_problem,
        ignore_selinux_options=node.config.runtime.ignore_selinux_options,
    )


def create_request(node: Node, container: Container, rootfs: RootfsSpec, config_json: bytes = b"") -> ContainerCreate:
    """Give the order to the monitor; it can take the short way when it is told what it may expect in config.json."""
    config = container.config
    checkpoint = restored_from(node.container_dir(container.id))
    return ContainerCreate(
        container_id=container.id,
        bundle=node.container_dir(container.id),
        state_root=node.oci_root,
        handler=container.meta.handler,
        handler_options=tuple(_handler_options(node, container)),
        rootfs=RootfsMount(lower=rootfs.lower, upper=rootfs.upper or "", work=rootfs.work or ""),
        terminal=config.tty,
        stdin=config.stdin,
        stdin_once=config.stdin and config.stdin_once,
        log_path=container.meta.log_path,
        log_directory=log_directory(node.pods.get(container.pod_id).config),
        alone=cgroup_alone(config_json),
        checkpoint=checkpoint,
        options=restore_options(checkpoint) if checkpoint else {},
    )


def _handed_on(node: Node, pod: Pod, config: ContainerConfig) -> dict[str, str]:
    """Give the annotations that the pod's handler lets through to its runtime; a container's own come last."""
    handler = node.config.runtime.handler(pod.meta.handler)
    if handler is None:
        return {}
    return {
        name: value
        for annotations, patterns in (
            (pod.config.annotations, handler.pod_annotations),
            (config.annotations, handler.container_annotations),
        )
        for name, value in annotations.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def _handler_options(node: Node, container: Container) -> list[str]:
    handler = node.config.runtime.handler(node.pods.get(container.pod_id).meta.handler)
    return list(handler.options) if handler is not None else []


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
