"""Everything a container's spec is a function of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shim.container.spec.host import HostFacts, HostSources
    from shim.gen.runtime.v1.api_pb2 import ContainerConfig, PodSandboxConfig


class ImageView(Protocol):
    """The part of an image's config that a spec reads (OCI image-spec, config.md); missing lists are empty."""

    @property
    def env(self) -> Sequence[str]:
        """NAME=value settings."""
        ...

    @property
    def entrypoint(self) -> Sequence[str]:
        """Words before the command."""
        ...

    @property
    def cmd(self) -> Sequence[str]:
        """Words of the command, replaced by the CRI's."""
        ...

    @property
    def working_dir(self) -> str:
        """Where to start."""
        ...

    @property
    def user(self) -> str:
        """Whom to run as: user, uid, and a group or gid after a colon."""
        ...

    @property
    def stop_signal(self) -> str:
        """What stops it, by name or number."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedUser:
    """Who the container's first process is.

    `groups` is the complete list for setgroups(2), the primary group included. `home` is the passwd entry's directory, "/"
    when there is no entry: it becomes HOME unless the image or the CRI sets one.
    """

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = (0,)
    home: str = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFiles:
    """Host paths of the pod's files; an empty one is not mounted.

    `shm` is the pod's tmpfs, or /dev/shm for a pod in the host's ipc namespace.
    """

    hostname: str = ""
    hosts: str = ""
    resolv_conf: str = ""
    shm: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerFeatures:
    """What the pod's runtime handler can do, as reported to kubelet in RuntimeHandlerFeatures."""

    recursive_read_only_mounts: bool = False
    user_namespaces: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecSettings:
    """Configuration of the daemon that shapes specs.

    `pod_cgroup` is the cgroup the node made for the pod, "" where kubelet names one. `unset_seccomp_profile` is a profile in
    the deprecated string form for containers that ask for nothing, `default_seccomp_profile` the file of what RuntimeDefault
    means ("": the bundled profile). `selinux_level` is the pod's own, for containers whose options name none.
    `apparmor_problem` says why the default AppArmor profile cannot be loaded, "" where it can
    be or nobody has tried. `ignore_selinux_options` lets containers run unlabelled on a node without SELinux.
    """

    pod_cgroup: str = ""
    cgroup_writable: bool = False
    unset_seccomp_profile: str = ""
    default_seccomp_profile: str = ""
    apparmor_profile: str = "wherry-default"
    apparmor_problem: str = ""
    selinux_level: str = ""
    ignore_selinux_options: bool = False
    tolerate_missing_hugetlb: bool = True
    device_ownership_from_security_context: bool = False
    privileged_without_host_devices: bool = False
    unprivileged_ports: bool = True
    unprivileged_icmp: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecInputs:
    """The arguments of `build.build`.

    `pod_namespaces` maps OCI namespace types ("network", "ipc", "uts", "user", "pid") to the paths of the pod's pins; which
    of them a container joins follows from the pod's and the container's NamespaceOption. `target_pid_path` is the pid
    namespace of the TARGET container. `image_volumes` maps container paths to host directories for the image's VOLUMEs
    (CRI mounts on the same path win). `image_mounts` has the places of mounts of images, topmost first, by the mount's index.
    `image_name` is what annotations show. `rootfs` is where the root is mounted, absolute or as seen from the bundle.
    """

    container_id: str
    pod_id: str
    config: ContainerConfig
    pod: PodSandboxConfig
    image: ImageView
    image_name: str
    user: ResolvedUser
    host: HostFacts
    sources: HostSources
    pod_namespaces: Mapping[str, str]
    pod_files: PodFiles = field(default_factory=PodFiles)
    target_pid_path: str = ""
    image_volumes: Mapping[str, str] = field(default_factory=dict)
    image_mounts: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    features: HandlerFeatures = field(default_factory=HandlerFeatures)
    annotations: Mapping[str, str] = field(default_factory=dict)
    rootfs: str = "rootfs"
    settings: SpecSettings = field(default_factory=SpecSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltSpec:
    """An OCI config.json as plain JSON values, and what had to be limited on this host (each one sentence, to be logged)."""

    config: dict[str, object]
    notes: tuple[str, ...] = ()
