"""What a spec needs to know about the node, as values; `detect` and `sources` fill them, tests write them down."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CgroupLayout(StrEnum):
    """How /sys/fs/cgroup is organised (cgroups(7))."""

    V1 = "v1"
    HYBRID = "hybrid"
    V2 = "v2"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The abilities of this node and of the daemon, detected once.

    `capabilities` is the daemon's bounding set, names like CAP_CHOWN in the kernel's order: nothing beyond it can be given
    to a container. `kernel` is (major, minor). `mapped_layers`: layers can be shown with other ids, as containers with a user
    namespace need them. `oom_score_adj_floor` is the lowest oom_score_adj the daemon may give.
    `cgroup_options` are the mount options nsdelegate and memory_recursiveprot of the host's cgroup2 mount, which a mount in
    the host's own cgroup namespace has to repeat. `hostname` names pods that bring none. `selinux_mls`: its policy has levels.
    """

    capabilities: tuple[str, ...]
    machine: str = "x86_64"
    kernel: tuple[int, int] = (5, 12)
    mapped_layers: bool = False
    hostname: str = "localhost"
    cgroup_layout: CgroupLayout = CgroupLayout.V2
    cgroup_options: tuple[str, ...] = ()
    swap_controller: bool = False
    hugetlb_controller: bool = False
    seccomp: bool = True
    apparmor: bool = False
    selinux: bool = False
    selinux_mls: bool = True
    oom_score_adj_floor: int = -1000


class SourcePropagation(StrEnum):
    """The propagation type of the mount that holds a bind's source (mount_namespaces(7))."""

    PRIVATE = "private"
    SLAVE = "slave"
    SHARED = "shared"


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSource:
    """A CRI mount's host path as found: symbolic links resolved, and how the mount it lies on propagates."""

    path: str
    is_dir: bool = True
    propagation: SourcePropagation = SourcePropagation.PRIVATE
    mountpoint: str = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNode:
    """One device of the host: `kind` is "c" or "b", `mode` the permission bits only."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSources:
    """What the host paths of one ContainerConfig are.

    `mounts` and `devices` run parallel to the config's lists; a device entry has several nodes when it names a directory,
    whose paths are then relative to it ("" for a single node). `host_devices` is filled for privileged containers.
    `ensure_dirs` are absolute directories to create (0755, with parents) before the container starts: CRI mounts whose
    host path does not exist. `apparmor_profiles` are the names of loaded profiles, where AppArmor is on.
    """

    mounts: tuple[MountSource, ...] = ()
    devices: tuple[tuple[DeviceNode, ...], ...] = ()
    host_devices: tuple[DeviceNode, ...] = ()
    seccomp_profile: bytes | None = None
    apparmor_profiles: frozenset[str] = frozenset()
    ensure_dirs: tuple[str, ...] = ()
