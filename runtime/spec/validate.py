"""Judge what the parts of a parsed config.json mean together; every fault names the JSON pointer.

Pure: nothing is looked up on the host, so whether the kernel has a feature, or a path exists, is judged where it is used.
What is refused is what runc and crun refuse (libcontainer/configs/validate, specconv) or config.md calls an error.
"""

from __future__ import annotations

from itertools import pairwise

from runtime.errors import SpecFault
from runtime.spec.words import (
    IO_CLASSES,
    IPC_SYSCTLS,
    MEMORY_POLICIES,
    MEMORY_POLICY_FLAGS,
    NAMESPACES,
    PERSONALITIES,
    PROPAGATIONS,
    RLIMITS,
    SCHEDULER_FLAGS,
    SCHEDULERS,
    SECCOMP_ACTIONS,
    SECCOMP_ARCHITECTURES,
    SECCOMP_FLAGS,
    SECCOMP_OPERATORS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from runtime.spec.lasting import Hook, MemoryPolicy
    from runtime.spec.model import IdMapping, Linux, Namespace, Process, Scheduler, Seccomp, SeccompSyscall, Spec, User

MAPPINGS_LIMIT = 340
"""Lines a uid_map takes (user_namespaces(7))."""
GROUPS_LIMIT = 65536
"""NGROUPS_MAX (setgroups(2))."""
MOUNTS_LIMIT = 8192
"""Mounts of a document. The kernel goes through those on one place one by one: twice as many may take minutes."""


def _require(condition: object, pointer: str, message: str) -> None:
    if not condition:
        raise SpecFault(message, pointer=pointer)


def _require_word(word: str, words: Iterable[str], pointer: str, what: str) -> None:
    if word not in words:
        raise SpecFault(f'"{word}" is not {what} ({", ".join(words)})', pointer=pointer)


def validate(spec: Spec) -> None:
    """Judge a whole config.json; raise SpecFault."""
    _require_version(spec.oci_version)
    if spec.process is None:
        raise SpecFault("is missing", pointer="/process")
    if spec.root is None:
        raise SpecFault("is missing", pointer="/root")
    validate_process(spec.process)
    namespaces = _namespaces(spec.linux.namespaces)
    if "uts" not in namespaces:
        for name, value in (("hostname", spec.hostname), ("domainname", spec.domainname)):
            _require(not value, f"/{name}", f"a {name} needs a uts namespace in /linux/namespaces")
    for name, value in spec.linux.sysctl:
        if name.replace("/", ".") == "kernel.domainname":
            agree = spec.domainname in ("", value)
            _require(agree, "/linux/sysctl/kernel.domainname", "conflicts with /domainname")
    _mounts(spec, namespaces)
    for kind, hooks in _hook_kinds(spec):
        for index, hook in enumerate(hooks):
            _require(hook.path.startswith("/"), f"/hooks/{kind}/{index}/path", f'"{hook.path}" is not an absolute path')
    _linux(spec.linux, namespaces)
    if "user" in namespaces and not namespaces["user"].path:
        _mapped(spec.process.user, spec.linux)
    _intel_rdt(spec.linux)


def _intel_rdt(linux: Linux) -> None:
    if linux.intel_rdt is not None:
        clos = linux.intel_rdt.clos_id
        plain = clos == "/" or ("/" not in clos and clos not in (".", ".."))
        _require(plain, "/linux/intelRdt/closID", f'"{clos}" is not the name of a resctrl group')


def _require_version(version: str) -> None:
    core = version.partition("+")[0].partition("-")[0].split(".")
    if len(core) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in core):
        raise SpecFault(f'"{version}" is not a version such as 1.3.0', pointer="/ociVersion")
    if int(core[0]) != 1:
        raise SpecFault(f'"{version}" is not supported (1.0.0 to 1.3.x)', pointer="/ociVersion")


def _hook_kinds(spec: Spec) -> tuple[tuple[str, tuple[Hook, ...]], ...]:
    hooks = spec.hooks
    return (
        ("prestart", hooks.prestart),
        ("createRuntime", hooks.create_runtime),
        ("createContainer", hooks.create_container),
        ("startContainer", hooks.start_container),
        ("poststart", hooks.poststart),
        ("poststop", hooks.poststop),
    )


def validate_process(process: Process, pointer: str = "/process") -> None:
    """Judge a process, of config.json or of an exec; `pointer` is where it lies."""
    _require(process.args, f"{pointer}/args", "needs at least the program's name")
    for index, entry in enumerate(process.env):
        name, equals, _ = entry.partition("=")
        _require(equals, f"{pointer}/env/{index}", "invalid environment variable: missing '='")
        _require(name, f"{pointer}/env/{index}", "invalid environment variable: name cannot be empty")
    _require(process.cwd, f"{pointer}/cwd", "is missing")
    _require(process.cwd.startswith("/"), f"{pointer}/cwd", f'"{process.cwd}" is not an absolute path')
    umask = process.user.umask
    _require(umask is None or umask <= 0o777, f"{pointer}/user/umask", f"{umask} is more than 511 (octal 777)")
    groups = len(process.user.additional_gids)
    _require(groups <= GROUPS_LIMIT, f"{pointer}/user/additionalGids", f"has {groups} groups, more than {GROUPS_LIMIT}")
    _rlimits(process, pointer)
    score = process.oom_score_adj
    _require(score is None or -1000 <= score <= 1000, f"{pointer}/oomScoreAdj", f"{score} is not between -1000 and 1000")
    if process.scheduler is not None:
        _scheduler(process.scheduler, f"{pointer}/scheduler")
    if process.io_priority is not None:
        where, priority = f"{pointer}/ioPriority", process.io_priority
        _require_word(priority.io_class, IO_CLASSES, f"{where}/class", "an I/O class")
        _require(0 <= priority.priority <= 7, f"{where}/priority", f"{priority.priority} is not between 0 and 7")
    if process.exec_cpu_affinity is not None:
        for name in ("initial", "final"):
            cpus = getattr(process.exec_cpu_affinity, name)
            _number_list(cpus, f"{pointer}/execCPUAffinity/{name}")


def _rlimits(process: Process, pointer: str) -> None:
    seen = set()
    for index, rlimit in enumerate(process.rlimits):
        where = f"{pointer}/rlimits/{index}"
        _require_word(rlimit.type, RLIMITS, f"{where}/type", "a resource limit")
        _require(rlimit.type not in seen, f"{where}/type", f"{rlimit.type} is set twice")
        _require(rlimit.soft <= rlimit.hard, f"{where}/soft", f"{rlimit.soft} is more than the hard limit {rlimit.hard}")
        seen.add(rlimit.type)


def _scheduler(scheduler: Scheduler, where: str) -> None:
    _require_word(scheduler.policy, SCHEDULERS, f"{where}/policy", "a scheduling policy")
    for index, flag in enumerate(scheduler.flags):
        _require_word(flag, SCHEDULER_FLAGS, f"{where}/flags/{index}", "a scheduling flag")
    _require(-20 <= scheduler.nice <= 19, f"{where}/nice", f"{scheduler.nice} is not between -20 and 19")
    real_time = scheduler.policy in ("SCHED_FIFO", "SCHED_RR")
    _require(real_time or not scheduler.priority, f"{where}/priority", "needs the policy SCHED_FIFO or SCHED_RR")
    if real_time:
        _require(1 <= scheduler.priority <= 99, f"{where}/priority", f"{scheduler.priority} is not between 1 and 99")
    for name in ("runtime", "deadline", "period"):
        given = getattr(scheduler, name)
        _require(not given or scheduler.policy == "SCHED_DEADLINE", f"{where}/{name}", "needs the policy SCHED_DEADLINE")
    if scheduler.policy == "SCHED_DEADLINE":
        _deadline(scheduler, where)


_DEADLINES = (1024, (1 << 63) - 1)
"""Nanoseconds the kernel takes for the runtime of SCHED_DEADLINE (sched_setattr(2))."""


def _deadline(scheduler: Scheduler, where: str) -> None:
    """Judge what the kernel would refuse with EINVAL; the words are crun's, whose users look for them."""
    said = "sched_setattr: `SCHED_DEADLINE`"
    runtime, deadline, period = scheduler.runtime, scheduler.deadline, scheduler.period
    _require(runtime is not None, f"{where}/runtime", f"{said} requires `runtime`")
    _require(deadline is not None, f"{where}/deadline", f"{said} requires `deadline`")
    runtime, deadline, period = runtime or 0, deadline or 0, period or 0
    _require(runtime, f"{where}/runtime", f"{said} runtime must be greater than 0")
    least, most = _DEADLINES
    _require(least <= runtime <= most, f"{where}/runtime", f"{said} runtime {runtime} must be between {least} and {most}")
    _require(runtime <= deadline, f"{where}/runtime", f"{said} runtime {runtime} must be <= deadline {deadline}")
    _require(not period or deadline <= period, f"{where}/deadline", f"{said} deadline {deadline} must be <= period {period}")


def _number_list(text: str, where: str, bad: str = "") -> None:
    if text:
        from runtime.spec.numbers import WANTED, is_number_list

        _require(is_number_list(text), where, f'{bad}"{text}" is not {WANTED}')


def _namespaces(namespaces: tuple[Namespace, ...]) -> dict[str, Namespace]:
    known: dict[str, Namespace] = {}
    for index, namespace in enumerate(namespaces):
        where = f"/linux/namespaces/{index}"
        _require_word(namespace.type, NAMESPACES, f"{where}/type", "a namespace type")
        _require(namespace.type not in known, f"{where}/type", f'"{namespace.type}" is listed twice')
        path = namespace.path
        _require(not path or path.startswith("/"), f"{where}/path", f'"{path}" is not an absolute path')
        known[namespace.type] = namespace
    return known


def _mounts(spec: Spec, namespaces: dict[str, Namespace]) -> None:
    _require(len(spec.mounts) <= MOUNTS_LIMIT, "/mounts", f"has more than {MOUNTS_LIMIT} mounts")
    for index, mount in enumerate(spec.mounts):
        where = f"/mounts/{index}"
        if mount.uid_mappings or mount.gid_mappings:
            _require(mount.uid_mappings, f"{where}/uidMappings", "is missing beside gidMappings")
            _require(mount.gid_mappings, f"{where}/gidMappings", "is missing beside uidMappings")
            bound = mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options
            _require(bound, where, "id mappings need a bind mount")
            _mapping_list(mount.uid_mappings, f"{where}/uidMappings")
            _mapping_list(mount.gid_mappings, f"{where}/gidMappings")
    if "mount" not in namespaces:
        for name in ("masked_paths", "readonly_paths"):
            pointer = f"/linux/{name.split('_')[0]}Paths"
            _require(not getattr(spec.linux, name), pointer, "needs a mount namespace in /linux/namespaces")


def _linux(linux: Linux, namespaces: dict[str, Namespace]) -> None:
    _user_namespace(linux, namespaces)
    _require(
        not linux.time_offsets or "time" in namespaces, "/linux/timeOffsets", "needs a time namespace in /linux/namespaces"
    )
    for offset in linux.time_offsets:
        _require_word(offset.clock, ("monotonic", "boottime"), f"/linux/timeOffsets/{offset.clock}", "a clock with an offset")
    _sysctls(linux, namespaces)
    _devices(linux)
    propagation = linux.rootfs_propagation
    _require(
        not propagation or propagation in PROPAGATIONS, "/linux/rootfsPropagation", f'"{propagation}" is not a propagation'
    )
    if linux.personality is not None:
        _require_word(linux.personality.domain, PERSONALITIES, "/linux/personality/domain", "a personality")
        _require(not linux.personality.flags, "/linux/personality/flags", "no flag is defined")
    if linux.memory_policy is not None:
        _memory_policy(linux.memory_policy)
    if linux.seccomp is not None:
        _seccomp(linux.seccomp)
    if linux.net_devices:
        _require("network" in namespaces, "/linux/netDevices", "needs a network namespace in /linux/namespaces")
        for device in linux.net_devices:
            for name in (device.host_name, device.name or device.host_name):
                _require(_is_interface(name), "/linux/netDevices", f'"{name}" is not the name of a network device')
    from runtime.spec.validate_resources import validate_resources

    validate_resources(linux.resources)


def _is_interface(name: str) -> bool:
    """Tell what the kernel takes as a name (dev_valid_name in net/core/dev.c)."""
    return (
        0 < len(name.encode("utf-8", "surrogateescape")) < 16
        and name not in (".", "..")
        and not set(name) & set("/: \t\n\v\f\r")
    )


def _user_namespace(linux: Linux, namespaces: dict[str, Namespace]) -> None:
    user = namespaces.get("user")
    for name, mappings in (("uidMappings", linux.uid_mappings), ("gidMappings", linux.gid_mappings)):
        where = f"/linux/{name}"
        if user is None:
            _require(not mappings, where, "needs a user namespace in /linux/namespaces")
        elif not user.path:
            _require(mappings, where, "is missing: a new user namespace needs it")
        _mapping_list(mappings, where)


def _mapped(user: User, linux: Linux) -> None:
    """Judge whether a new user namespace knows the ids it is to be used with; the words are runc's."""
    for name, lines, number in (("uid", linux.uid_mappings, user.uid), ("gid", linux.gid_mappings, user.gid)):
        root = any(line.container_id == 0 for line in lines)
        _require(root, f"/linux/{name}Mappings", f"no mapping found for {name} 0")
        mapped = any(line.container_id <= number < line.container_id + line.size for line in lines)
        _require(mapped, f"/process/user/{name}", f"cannot set{name} to unmapped {name} {number} in user namespace")


def _mapping_list(mappings: tuple[IdMapping, ...], where: str) -> None:
    _require(len(mappings) <= MAPPINGS_LIMIT, where, f"has more than {MAPPINGS_LIMIT} lines")
    for side in ("container_id", "host_id"):
        ranges = sorted((getattr(mapping, side), mapping.size) for mapping in mappings)
        for (first, size), (following, _) in pairwise(ranges):
            _require(first + size <= following, where, f"two lines overlap at {side.replace('_', ' ')} {following}")


def _sysctls(linux: Linux, namespaces: dict[str, Namespace]) -> None:
    for name, _ in linux.sysctl:
        where = f"/linux/sysctl/{name.replace('~', '~0').replace('/', '~1')}"
        dotted = name.replace("/", ".") if "/" in name and "." not in name.partition("/")[0] else name
        _require(".." not in dotted.split(".") and "/../" not in f"/{name}/", where, f'"{name}" is not a sysctl')
        _require(dotted != "kernel.hostname", where, "conflicts with /hostname: set that instead")
        needed = _sysctl_namespace(dotted)
        _require(needed, where, f'"{name}" belongs to no namespace: it would change the host')
        _require(needed in namespaces, where, f'"{name}" needs a {needed} namespace in /linux/namespaces')


def _sysctl_namespace(name: str) -> str:
    if name in IPC_SYSCTLS or name.startswith("fs.mqueue."):
        return "ipc"
    if name.startswith("net."):
        return "network"
    if name == "kernel.domainname":
        return "uts"
    return "user" if name.startswith("user.") else ""


def _devices(linux: Linux) -> None:
    for index, device in enumerate(linux.devices):
        where = f"/linux/devices/{index}"
        _require_word(device.type, ("c", "u", "b", "p"), f"{where}/type", "a device type")
        _require(device.path.startswith("/"), f"{where}/path", f'"{device.path}" is not an absolute path')
        if device.type != "p":
            _require(0 <= device.major < 1 << 12, f"{where}/major", f"{device.major} is not a device number")
            _require(0 <= device.minor < 1 << 20, f"{where}/minor", f"{device.minor} is not a device number")


def _memory_policy(policy: MemoryPolicy) -> None:
    where, bad = "/linux/memoryPolicy", "invalid memory policy"  # the words of runc's users
    known = ", ".join(MEMORY_POLICIES)
    _require(policy.mode in MEMORY_POLICIES, f"{where}/mode", f'{bad} mode "{policy.mode}": it is one of {known}')
    for index, flag in enumerate(policy.flags):
        known = ", ".join(MEMORY_POLICY_FLAGS)
        _require(flag in MEMORY_POLICY_FLAGS, f"{where}/flags/{index}", f'{bad} flag "{flag}": it is one of {known}')
    nodes = policy.nodes
    _number_list(nodes, f"{where}/nodes", f"{bad} nodes: ")
    if nodes.strip() and policy.mode in ("MPOL_DEFAULT", "MPOL_LOCAL"):
        from runtime.spec.numbers import bits

        raise SpecFault(f"{bad}: mode requires 0 nodes but got {bits(nodes).bit_count()}", pointer=f"{where}/nodes")


def _seccomp(seccomp: Seccomp) -> None:
    where = "/linux/seccomp"
    _require_word(seccomp.default_action, SECCOMP_ACTIONS, f"{where}/defaultAction", "a seccomp action")
    notify = seccomp.default_action == "SCMP_ACT_NOTIFY"
    _require(not notify, f"{where}/defaultAction", "SCMP_ACT_NOTIFY cannot be the default action")
    _errno_ret(seccomp.default_action, seccomp.default_errno_ret, f"{where}/defaultErrnoRet")
    listened = seccomp.listener_path or not seccomp.listener_metadata
    _require(listened, f"{where}/listenerMetadata", "is for a listener: listenerPath is missing")
    for index, name in enumerate(seccomp.architectures):
        _require_word(name, SECCOMP_ARCHITECTURES, f"{where}/architectures/{index}", "an architecture")
    for index, name in enumerate(seccomp.flags):
        _require_word(name, SECCOMP_FLAGS, f"{where}/flags/{index}", "a seccomp flag")
    for index, rule in enumerate(seccomp.syscalls):
        _seccomp_rule(rule, f"{where}/syscalls/{index}", seccomp)


def _errno_ret(action: str, errno_ret: int | None, where: str) -> None:
    with_errno = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
    _require(errno_ret is None or action in with_errno, where, f"{action} gives no error: remove it, or use SCMP_ACT_ERRNO")


def _seccomp_rule(rule: SeccompSyscall, where: str, seccomp: Seccomp) -> None:
    _require_word(rule.action, SECCOMP_ACTIONS, f"{where}/action", "a seccomp action")
    if rule.action == "SCMP_ACT_NOTIFY":
        _require(seccomp.listener_path, "/linux/seccomp/listenerPath", "is missing: SCMP_ACT_NOTIFY needs it")
        _require("write" not in rule.names, f"{where}/names", "SCMP_ACT_NOTIFY cannot be used for the write syscall")
    _errno_ret(rule.action, rule.errno_ret, f"{where}/errnoRet")
    for index, argument in enumerate(rule.args):
        _require_word(argument.op, SECCOMP_OPERATORS, f"{where}/args/{index}/op", "a comparison")
