"""Carry out adjustments on a config.json: plain JSON values in, changed in place. Pure but for what is handed in.

In the order in which containerd does it: what comes later may overwrite what CDI devices brought.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shim.container.spec.mountinfo import propagation_of
from shim.errors import FailedPrecondition, InvalidArgument
from shim.gen.nri.v1alpha1 import api_pb2 as nri
from shim.nri.messages import HOOKS
from shim.nri.owners import split_mark
from shim.nri.resources import CPU, CPU_LISTS, MEMORY, given_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Json = dict[str, Any]

PROPAGATIONS = {"rprivate": (), "rslave": ("shared", "slave"), "rshared": ("shared",)}
"""Options of a mount, and how the mount that holds its source must propagate for them to mean anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What of the host adjustments need: how CDI devices are brought in, a mount table, and limits of this node."""

    inject: Callable[[Json, Sequence[str]], None]
    mountinfo: Callable[[], str]
    swap: bool = False
    hugetlb: bool = True
    oom_score_adj_floor: int = -1000


def apply(spec: Json, adjust: nri.ContainerAdjustment, host: Surroundings) -> None:
    """Change `spec` as asked; raise InvalidArgument or FailedPrecondition naming what cannot be done."""
    process, linux = spec["process"], spec["linux"]
    _apply_map(spec, "annotations", dict(adjust.annotations))
    _apply_env(process, adjust.env)
    if adjust.args:
        process["args"] = list(adjust.args)
    _apply_hooks(spec, adjust.hooks)
    if adjust.CDI_devices:
        host.inject(spec, [device.name for device in adjust.CDI_devices])
    _apply_devices(linux, adjust.linux.devices)
    _apply_process(process, adjust.linux, host)
    _apply_kernel(linux, adjust.linux)
    if adjust.linux.HasField("resources"):
        apply_resources(linux, adjust.linux.resources, host)
    _apply_rdt(linux, adjust.linux.rdt)
    _apply_mounts(spec, adjust.mounts, host)
    for limit in adjust.rlimits:
        rest = [one for one in process.get("rlimits", []) if one["type"] != limit.type]
        process["rlimits"] = [*rest, {"type": limit.type, "hard": limit.hard, "soft": limit.soft}]


def _apply_map(owner: Json, name: str, asked: Mapping[str, Any]) -> None:
    """Remove what is marked, then set the rest; an object that is empty afterwards is left out."""
    values = dict(owner.get(name, {}))
    for key in asked:
        entry, gone = split_mark(key)
        if gone:
            values.pop(entry, None)
    values |= {key: value for key, value in asked.items() if not split_mark(key)[1]}
    if values or name in owner:
        owner[name] = values


def _apply_env(process: Json, asked: Sequence[nri.KeyValue]) -> None:
    removed = {key for key, gone in (split_mark(pair.key) for pair in asked) if gone}
    wanted = {pair.key: f"{pair.key}={pair.value}" for pair in asked if not split_mark(pair.key)[1]}
    env = []
    for one in process.get("env", []):
        name = one.partition("=")[0]
        if name in wanted:
            env.append(wanted.pop(name))
        elif name not in removed:
            env.append(one)
    process["env"] = env + list(wanted.values())


def _apply_hooks(spec: Json, hooks: nri.Hooks) -> None:
    for name, word in HOOKS.items():
        for hook in getattr(hooks, name):
            entry: Json = {"path": hook.path, "args": list(hook.args), "env": list(hook.env)}
            if hook.HasField("timeout"):
                entry["timeout"] = hook.timeout.value
            spec.setdefault("hooks", {}).setdefault(word, []).append(entry)


def _apply_devices(linux: Json, asked: Sequence[nri.LinuxDevice]) -> None:
    for device in asked:
        path, gone = split_mark(device.path)
        nodes = [one for one in linux.get("devices", []) if one["path"] != path]
        if not gone:
            entry: Json = {"path": path, "type": device.type, "major": device.major, "minor": device.minor}
            for name, word in (("file_mode", "fileMode"), ("uid", "uid"), ("gid", "gid")):
                if device.HasField(name):
                    entry[word] = getattr(device, name).value
            nodes.append(entry)
            access = "rwm" if device.type == "b" else "rw"
            rule = {"allow": True, "type": device.type, "major": device.major, "minor": device.minor, "access": access}
            linux.setdefault("resources", {}).setdefault("devices", []).append(rule)
        linux["devices"] = nodes


def _apply_process(process: Json, asked: nri.LinuxContainerAdjustment, host: Surroundings) -> None:
    if asked.HasField("oom_score_adj"):
        process["oomScoreAdj"] = max(asked.oom_score_adj.value, host.oom_score_adj_floor)
    if asked.HasField("io_priority"):
        priority = asked.io_priority
        process["ioPriority"] = {"class": nri.IOPrioClass.Name(priority.io_class), "priority": priority.priority}
        if priority.io_class == nri.IOPRIO_CLASS_NONE:
            del process["ioPriority"]
    if asked.HasField("scheduler"):
        process.pop("scheduler", None)
        if asked.scheduler.policy != nri.SCHED_NONE:
            process["scheduler"] = _scheduler(asked.scheduler)


def _scheduler(asked: nri.LinuxScheduler) -> Json:
    scheduler: Json = {"policy": nri.LinuxSchedulerPolicy.Name(asked.policy)}
    for name in ("nice", "priority", "runtime", "deadline", "period"):
        if value := getattr(asked, name):
            scheduler[name] = value
    if asked.flags:
        scheduler["flags"] = [nri.LinuxSchedulerFlag.Name(flag) for flag in asked.flags]
    return scheduler


def _apply_kernel(linux: Json, asked: nri.LinuxContainerAdjustment) -> None:
    if asked.cgroups_path:
        linux["cgroupsPath"] = asked.cgroups_path
    if asked.HasField("seccomp_policy"):
        linux["seccomp"] = _seccomp(asked.seccomp_policy)
    for namespace in asked.namespaces:
        kind, gone = split_mark(namespace.type)
        rest = [one for one in linux.get("namespaces", []) if one["type"] != kind]
        new = {"type": kind, "path": namespace.path} if namespace.path else {"type": kind}
        linux["namespaces"] = rest if gone else [*rest, new]
    _apply_map(linux, "sysctl", dict(asked.sysctl))
    _apply_map(linux, "netDevices", {name: {"name": one.name} if one.name else {} for name, one in asked.net_devices.items()})
    if asked.HasField("memory_policy"):
        policy = asked.memory_policy
        linux["memoryPolicy"] = {
            "mode": nri.MpolMode.Name(policy.mode),
            "nodes": policy.nodes,
            "flags": [nri.MpolFlag.Name(flag) for flag in policy.flags],
        }


def _seccomp(policy: nri.LinuxSeccomp) -> Json:
    result: Json = {"defaultAction": policy.default_action}
    if policy.HasField("default_errno"):
        result["defaultErrnoRet"] = policy.default_errno.value
    for name, word in (("architectures", "architectures"), ("flags", "flags")):
        if getattr(policy, name):
            result[word] = list(getattr(policy, name))
    for name, word in (("listener_path", "listenerPath"), ("listener_metadata", "listenerMetadata")):
        if getattr(policy, name):
            result[word] = getattr(policy, name)
    result["syscalls"] = [_syscall(rule) for rule in policy.syscalls]
    return result


def _syscall(rule: nri.LinuxSyscall) -> Json:
    result: Json = {"names": list(rule.names), "action": rule.action}
    if rule.HasField("errno_ret"):
        result["errnoRet"] = rule.errno_ret.value
    if rule.args:
        result["args"] = [
            {"index": arg.index, "value": arg.value, "valueTwo": arg.value_two, "op": arg.op} for arg in rule.args
        ]
    return result


def apply_resources(linux: Json, asked: nri.LinuxResources, host: Surroundings) -> None:
    """Change linux.resources; raise InvalidArgument for a class of block I/O, of which this node defines none."""
    resources = linux.setdefault("resources", {})
    memory, cpu = given_of(asked.memory, MEMORY), given_of(asked.cpu, CPU)
    if "limit" in memory and "swap" not in memory and (host.swap or "swap" in resources.get("memory", {})):
        memory["swap"] = memory["limit"]
    cpu |= {name: getattr(asked.cpu, name) for name in CPU_LISTS if getattr(asked.cpu, name)}
    for name, given in (("memory", memory), ("cpu", cpu), ("unified", dict(asked.unified))):
        if given:
            resources[name] = {**resources.get(name, {}), **given}
    for limit in asked.hugepage_limits if host.hugetlb else ():
        rest = [one for one in resources.get("hugepageLimits", []) if one["pageSize"] != limit.page_size]
        resources["hugepageLimits"] = [*rest, {"pageSize": limit.page_size, "limit": limit.limit}]
    if asked.HasField("pids"):
        resources["pids"] = {"limit": asked.pids.limit}
    for rule in asked.devices:
        entry: Json = {"allow": rule.allow, "type": rule.type, "access": rule.access}
        entry |= {"major": rule.major.value} if rule.HasField("major") else {}
        entry |= {"minor": rule.minor.value} if rule.HasField("minor") else {}
        resources.setdefault("devices", []).append(entry)
    _apply_classes(linux, asked)


def _apply_classes(linux: Json, asked: nri.LinuxResources) -> None:
    if asked.HasField("blockio_class"):
        if asked.blockio_class.value:
            raise InvalidArgument(f"block I/O class {asked.blockio_class.value!r} is not known: this node defines no classes")
        linux["resources"].pop("blockIO", None)
    if asked.HasField("rdt_class"):
        linux.pop("intelRdt", None)
        if asked.rdt_class.value:
            linux["intelRdt"] = {"closID": asked.rdt_class.value}


def _apply_rdt(linux: Json, asked: nri.LinuxRdt) -> None:
    if asked.remove:
        linux.pop("intelRdt", None)
    if asked.HasField("clos_id"):
        linux.setdefault("intelRdt", {})["closID"] = asked.clos_id.value
    if asked.HasField("schemata"):
        linux.setdefault("intelRdt", {})["schemata"] = list(asked.schemata.value)
    if asked.HasField("enable_monitoring"):
        linux.setdefault("intelRdt", {})["enableMonitoring"] = asked.enable_monitoring.value


def _apply_mounts(spec: Json, asked: Sequence[nri.Mount], host: Surroundings) -> None:
    """Replace and remove mounts by destination; what belongs below another mount comes after it."""
    if not asked:
        return
    mounts = list(spec.get("mounts", []))
    for mount in asked:
        destination, gone = split_mark(mount.destination)
        mounts = [one for one in mounts if one["destination"] != destination]
        if gone:
            continue
        _propagate(spec["linux"], mount, host)
        entry = {"destination": destination, "type": mount.type, "source": mount.source, "options": list(mount.options)}
        mounts.append({key: value for key, value in entry.items() if value})
    mounts.sort(key=lambda one: one["destination"].rstrip("/").count("/"))
    spec["mounts"] = mounts


def _propagate(linux: Json, mount: nri.Mount, host: Surroundings) -> None:
    """Let the root propagate as the mount does; raise FailedPrecondition when its source does not."""
    wanted = next((option for option in reversed(mount.options) if option in PROPAGATIONS), "rprivate")
    if wanted == "rprivate":
        return
    point, kind = propagation_of(host.mountinfo(), mount.source)
    if kind not in PROPAGATIONS[wanted]:
        raise FailedPrecondition(f"mount {mount.destination} wants {wanted}, but {point}, which holds its source, is {kind}")
    if linux.get("rootfsPropagation") != "rshared":
        linux["rootfsPropagation"] = wanted
