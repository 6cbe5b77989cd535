"""config.json of runtime-spec 1.3 for Linux as frozen values: the names are the document's, in snake case.

Lists are tuples and string maps tuples of pairs in the document's order, so that every value is hashable. An absent part is
None where absence means something, and the empty value (`""`, `()`, `Linux()`) where it does not.
"""

from __future__ import annotations

from runtime.record import Record
from runtime.spec.lasting import Hooks, MemoryPolicy, Pairs, Personality
from runtime.spec.resources import Resources


class User(Record):
    """Ids of the process inside the container."""

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()


class ConsoleSize(Record):
    """Size of the terminal in characters."""

    height: int
    width: int


class Capabilities(Record):
    """The five capability sets, names with CAP_."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Rlimit(Record):
    """One resource limit; `type` is spelled RLIMIT_NOFILE and 2**64 - 1 is RLIM_INFINITY."""

    type: str
    soft: int
    hard: int


class Scheduler(Record):
    """sched_setattr(2): `policy` is spelled SCHED_BATCH, `flags` SCHED_FLAG_RESET_ON_FORK; times are nanoseconds."""

    policy: str
    nice: int = 0
    priority: int = 0
    flags: tuple[str, ...] = ()
    runtime: int | None = None
    deadline: int | None = None
    period: int | None = None


class IoPriority(Record):
    """ioprio_set(2): `io_class` is spelled IOPRIO_CLASS_BE; priority 0 (high) to 7."""

    io_class: str
    priority: int = 0


class ExecCpuAffinity(Record):
    """CPU lists of an exec'd process: while the runtime still works in the container's cgroup, and for the program."""

    initial: str = ""
    final: str = ""


class Process(Record):
    """What is executed and as whom. `capabilities` None means none at all; `args` may be empty only until validated."""

    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = "/"
    terminal: bool = False
    console_size: ConsoleSize | None = None
    user: User = User()
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    selinux_label: str = ""
    oom_score_adj: int | None = None
    scheduler: Scheduler | None = None
    io_priority: IoPriority | None = None
    exec_cpu_affinity: ExecCpuAffinity | None = None


class Root(Record):
    """The root file system; `path` is relative to the bundle unless absolute."""

    path: str
    readonly: bool = False


class IdMapping(Record):
    """One line of a uid_map or gid_map (user_namespaces(7))."""

    container_id: int
    host_id: int
    size: int


class Mount(Record):
    """One mount, in the order of the document; `options` keeps flags and file system data unsorted."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()


class Namespace(Record):
    """A namespace to join (`path`) or to make (empty path). `type` is pid, network, mount, ipc, uts, user, cgroup or time."""

    type: str
    path: str = ""


class TimeOffset(Record):
    """An offset of a clock of a new time namespace; `clock` is monotonic or boottime."""

    clock: str
    secs: int = 0
    nanosecs: int = 0


class Device(Record):
    """A device node to make; `type` is c, u, b or p; `file_mode` holds permission bits only."""

    type: str
    path: str
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class NetDevice(Record):
    """A network device of the runtime's namespace to move into the container, as `name` when that is not empty."""

    host_name: str
    name: str = ""


class SeccompArg(Record):
    """One comparison of a system call's argument; `op` is spelled SCMP_CMP_EQ."""

    index: int
    value: int
    value_two: int = 0
    op: str = "SCMP_CMP_EQ"


class SeccompSyscall(Record):
    """A rule: what happens to these system calls when all `args` match."""

    names: tuple[str, ...]
    action: str
    errno_ret: int | None = None
    args: tuple[SeccompArg, ...] = ()


class Seccomp(Record):
    """A seccomp profile; `architectures` are spelled SCMP_ARCH_X86_64, `flags` SECCOMP_FILTER_FLAG_LOG."""

    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[SeccompSyscall, ...] = ()


class IntelRdt(Record):
    """resctrl(8) group and schemata."""

    clos_id: str = ""
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    schemata: tuple[str, ...] = ()
    enable_monitoring: bool = False


class Linux(Record):
    """The platform part of the document."""

    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    time_offsets: tuple[TimeOffset, ...] = ()
    devices: tuple[Device, ...] = ()
    net_devices: tuple[NetDevice, ...] = ()
    cgroups_path: str = ""
    resources: Resources = Resources()
    rootfs_propagation: str = ""
    seccomp: Seccomp | None = None
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    mount_label: str = ""
    personality: Personality | None = None
    intel_rdt: IntelRdt | None = None
    memory_policy: MemoryPolicy | None = None
    sysctl: Pairs = ()


class Spec(Record):
    """A whole config.json."""

    oci_version: str
    process: Process | None = None
    root: Root | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks = Hooks()
    annotations: Pairs = ()
    linux: Linux = Linux()
