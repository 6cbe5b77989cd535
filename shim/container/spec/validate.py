"""Refuse requests that contradict themselves, naming the field.

Pure and cheap: called before anything is made, and for pods and containers read back from the database never.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from shim.cdi.names import wanted_devices
from shim.container.spec.devices import check_device
from shim.container.spec.image_mounts import check_image_mount
from shim.container.spec.inputs import SpecSettings
from shim.container.spec.mounts import BIDIRECTIONAL, HOST_TO_CONTAINER, PRIVATE, mount_destination
from shim.container.spec.namespaces import CONTAINER, NODE, POD, TARGET, uses_user_namespace
from shim.container.spec.paths import check_cgroup_parent, container_log_path
from shim.container.spec.pod_files import check_hostname, resolv_conf
from shim.container.spec.security import check_profile, check_selinux
from shim.container.spec.signals import stop_signal
from shim.container.spec.sysctls import pod_sysctls
from shim.container.spec.users import check_id, user_string
from shim.errors import InvalidArgument
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shim.container.spec.inputs import HandlerFeatures
    from shim.gen.runtime.v1.api_pb2 import (
        ContainerConfig,
        IDMapping,
        LinuxContainerSecurityContext,
        LinuxSandboxSecurityContext,
        Mount,
        NamespaceOption,
        PodSandboxConfig,
        PortMapping,
        UserNamespace,
    )

POLICIES = frozenset((api_pb2.Merge, api_pb2.Strict))
PROTOCOLS = frozenset((api_pb2.TCP, api_pb2.UDP, api_pb2.SCTP))
LONGEST_NAME = 4096
_ATTRIBUTES = ("noexec", "nosuid", "nodev", "noatime", "nodiratime", "nosymfollow")
MOUNT_OPTIONS = frozenset((*_ATTRIBUTES, *(f"r{word}" for word in _ATTRIBUTES)))
"""What a volume may be mounted with besides what other fields say (KEP-5855): words that take something away."""


def validate_pod(pod: PodSandboxConfig, features: HandlerFeatures | None = None) -> None:
    """Raise InvalidArgument naming the first field of a RunPodSandboxRequest's config that cannot be served.

    With `features`, what the pod's runtime handler cannot do is refused here, before anything is made.
    """
    if not pod.HasField("metadata") or not pod.metadata.name:
        raise InvalidArgument("the pod sandbox config must include metadata with a name")
    for field in ("name", "uid", "namespace"):
        _check_name(getattr(pod.metadata, field), f"metadata.{field}")
    check_hostname(pod.hostname)
    if pod.log_directory and (not pod.log_directory.startswith("/") or "\0" in pod.log_directory):
        raise InvalidArgument(f"log_directory {pod.log_directory!r} is not an absolute path")
    if pod.HasField("dns_config"):
        resolv_conf(pod.dns_config, None)
    _check_ports(pod.port_mappings)
    check_cgroup_parent(pod.linux.cgroup_parent)
    _check_pod_namespaces(pod.linux.security_context.namespace_options)
    _check_pod_security(pod.linux.security_context)
    pod_sysctls(pod, SpecSettings())
    userns = pod.linux.security_context.namespace_options.userns_options
    if features is not None and uses_user_namespace(userns) and not features.user_namespaces:
        raise InvalidArgument("namespace_options.userns_options asks for a user namespace, which the runtime handler lacks")


def validate_container(config: ContainerConfig, pod: PodSandboxConfig) -> None:
    """Raise InvalidArgument (Unimplemented for what is not served yet) naming the field, for a config in its pod."""
    if not config.HasField("metadata") or not config.metadata.name:
        raise InvalidArgument("the container config must include metadata with a name")
    _check_name(config.metadata.name, "metadata.name")
    if not config.image.image:
        raise InvalidArgument("image.image is empty: a container needs an image")
    wanted_devices((device.name for device in config.CDI_devices), config.annotations)
    stop_signal(config, "")
    container_log_path(config, pod)
    for index, mount in enumerate(config.mounts):
        _check_mount(mount, index)
    for position, device in enumerate(config.devices):
        check_device(device, position)
    security = config.linux.security_context
    _check_security(security, pod)
    if security.HasField("namespace_options"):
        _check_namespaces(security.namespace_options, pod.linux.security_context.namespace_options)


def _check_name(name: str, field: str) -> None:
    if len(name) > LONGEST_NAME or any(character < " " or character == "\x7f" for character in name):
        raise InvalidArgument(f"{field} is longer than {LONGEST_NAME} characters or holds control characters")


def _check_ports(mappings: Sequence[PortMapping]) -> None:
    """Refuse also what plugins refuse, since they do so again when the pod is to be removed."""
    seen = set()
    for index, mapping in enumerate(mappings):
        _check_port(mapping, index)
        key = (mapping.protocol, mapping.host_ip, mapping.host_port)
        if mapping.host_port and not mapping.container_port:
            raise InvalidArgument(
                f"port_mappings[{index}].container_port is 0, and host_port {mapping.host_port} has to lead to a port"
            )
        if mapping.host_port and key in seen:
            raise InvalidArgument(f"port_mappings[{index}].host_port {mapping.host_port} is mapped already")
        seen.add(key)


def _check_port(mapping: PortMapping, index: int) -> None:
    field = f"port_mappings[{index}]"
    if mapping.protocol not in PROTOCOLS:
        raise InvalidArgument(f"{field}.protocol {mapping.protocol} is unknown")
    for name, port in (("container_port", mapping.container_port), ("host_port", mapping.host_port)):
        if not 0 <= port <= 65535:
            raise InvalidArgument(f"{field}.{name} {port} is outside 0..65535")
    if mapping.host_ip:
        try:
            ipaddress.ip_address(mapping.host_ip)
        except ValueError as error:
            raise InvalidArgument(f"{field}.host_ip {mapping.host_ip!r} is no IP address") from error


def _check_pod_namespaces(options: NamespaceOption) -> None:
    modes = (
        ("network", options.network, (POD, NODE)),
        ("ipc", options.ipc, (POD, NODE)),
        ("pid", options.pid, (POD, CONTAINER, NODE)),
    )
    for field, mode, known in modes:
        if mode not in known:
            raise InvalidArgument(f"namespace_options.{field} {_mode(mode)} makes no sense for a pod")
    if options.target_id:
        raise InvalidArgument("namespace_options.target_id is for containers, not for pods")
    if options.HasField("userns_options"):
        _check_user_namespace(options.userns_options)
        for field, mode in (("ipc", options.ipc), ("pid", options.pid)):
            if options.userns_options.mode == POD and mode == NODE:
                raise InvalidArgument(f"namespace_options.{field} NODE and a user namespace of the pod exclude each other")


def _check_user_namespace(options: UserNamespace) -> None:
    """Check the mode against the mappings."""
    for field, mappings in (("uids", options.uids), ("gids", options.gids)):
        for mapping in mappings:
            _check_mapping(mapping, f"userns_options.{field}")
        if len(mappings) > 1:
            raise InvalidArgument(f"userns_options.{field} has {len(mappings)} mappings, and one is supported")
    if options.mode not in {POD, NODE}:
        raise InvalidArgument(f"userns_options.mode {_mode(options.mode)} makes no sense for a user namespace")
    if options.mode == NODE and (options.uids or options.gids):
        raise InvalidArgument("userns_options has mappings, and mode NODE means the node's user namespace")
    if options.mode == POD and not (options.uids and options.gids):
        raise InvalidArgument("userns_options.mode POD needs mappings of uids and of gids")
    if any(mapping.container_id for mapping in (*options.uids, *options.gids)):
        raise InvalidArgument("userns_options maps no one to container id 0: a pod needs its root")


def _check_mapping(mapping: IDMapping, field: str) -> None:
    highest = 2**32 - 1
    if mapping.length < 1 or mapping.host_id + mapping.length > highest or mapping.container_id + mapping.length > highest:
        raise InvalidArgument(f"{field} maps {mapping.length} ids from {mapping.container_id} to {mapping.host_id}")


def _check_pod_security(security: LinuxSandboxSecurityContext) -> None:
    prefix = "linux.security_context"
    if security.HasField("run_as_user"):
        check_id(security.run_as_user.value, f"{prefix}.run_as_user")
    if security.HasField("run_as_group"):
        group = check_id(security.run_as_group.value, f"{prefix}.run_as_group")
        if not security.HasField("run_as_user"):
            raise InvalidArgument(f"{prefix}.run_as_group {group} is specified without a user")
    for value in security.supplemental_groups:
        check_id(value, f"{prefix}.supplemental_groups")
    if security.supplemental_groups_policy not in POLICIES:
        raise InvalidArgument(f"{prefix}.supplemental_groups_policy {security.supplemental_groups_policy} is unknown")
    for field in ("seccomp", "apparmor"):
        if security.HasField(field):
            check_profile(getattr(security, field), f"{prefix}.{field}")
    check_selinux(security.selinux_options, f"{prefix}.selinux_options")


def _check_security(security: LinuxContainerSecurityContext, pod: PodSandboxConfig) -> None:
    prefix = "linux.security_context"
    if security.privileged and not pod.linux.security_context.privileged:
        raise InvalidArgument(f"{prefix}.privileged: no privileged container allowed in a sandbox that is not privileged")
    if set(security.run_as_username) & {":", "\n", "\0"}:
        raise InvalidArgument(f"{prefix}.run_as_username {security.run_as_username!r} is no user name")
    user_string(security)
    for value in security.supplemental_groups:
        check_id(value, f"{prefix}.supplemental_groups")
    if security.supplemental_groups_policy not in POLICIES:
        raise InvalidArgument(f"{prefix}.supplemental_groups_policy {security.supplemental_groups_policy} is unknown")
    for field in ("seccomp", "apparmor"):
        if security.HasField(field):
            check_profile(getattr(security, field), f"{prefix}.{field}")
    check_selinux(security.selinux_options, f"{prefix}.selinux_options")
    for field in ("masked_paths", "readonly_paths"):
        for path in getattr(security, field):
            if not path.startswith("/") or "\0" in path:
                raise InvalidArgument(f"{prefix}.{field} has {path!r}, which is not an absolute path")


def _check_namespaces(own: NamespaceOption, pod: NamespaceOption) -> None:
    """Compare a container's options with its pod's: POD means whatever the pod has, NODE only what the pod has of the node."""
    for field in ("network", "ipc"):
        mode, of_pod = getattr(own, field), getattr(pod, field)
        if mode not in {POD, NODE}:
            raise InvalidArgument(f"namespace_options.{field} {_mode(mode)} is not supported; use POD or NODE")
        if mode == NODE and of_pod != NODE:
            raise InvalidArgument(f"namespace_options.{field} is NODE for the container, and {_mode(of_pod)} for its pod")
    if own.pid not in {POD, CONTAINER, NODE, TARGET}:
        raise InvalidArgument(f"namespace_options.pid {_mode(own.pid)} is unknown")
    if (own.pid == NODE and pod.pid != NODE) or (own.pid == POD and pod.pid == CONTAINER):
        raise InvalidArgument(f"namespace_options.pid is {_mode(own.pid)} for the container, and {_mode(pod.pid)} for its pod")
    if (own.pid == TARGET) != bool(own.target_id):
        raise InvalidArgument("namespace_options.target_id and pid TARGET belong together, and one of them is missing")
    inside = uses_user_namespace(own.userns_options), uses_user_namespace(pod.userns_options)
    if any(inside) and own.userns_options != pod.userns_options:
        raise InvalidArgument("namespace_options.userns_options of the container differ from its pod's")


def _mode(number: int) -> str:
    entry = api_pb2.NamespaceMode.DESCRIPTOR.values_by_number.get(number)
    return entry.name if entry else str(number)


def _check_mount(mount: Mount, index: int) -> None:
    mount_destination(mount, index)
    field = f"mounts[{index}]"
    for option in mount.mount_options:
        if option not in MOUNT_OPTIONS:
            raise InvalidArgument(f"{field}.mount_options has {option!r}; known are {', '.join(sorted(MOUNT_OPTIONS))}")
    if mount.HasField("image"):
        check_image_mount(mount, field)
    elif mount.image_sub_path:
        raise InvalidArgument(f"{field}.image_sub_path is set, and image is not")
    elif not mount.host_path.startswith("/") or "\0" in mount.host_path:
        raise InvalidArgument(f"{field}.host_path {mount.host_path!r} is not an absolute path")
    if mount.propagation not in {PRIVATE, HOST_TO_CONTAINER, BIDIRECTIONAL}:
        raise InvalidArgument(f"{field}.propagation {mount.propagation} is unknown")
    for mapping in [*mount.uidMappings, *mount.gidMappings]:
        _check_mapping(mapping, f"{field}.uidMappings or gidMappings")
