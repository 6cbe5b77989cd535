"""What plugins ask of a container that is being created, put together. Pure.

Each plugin sees the container as those before it have left it, and nobody may overwrite another's change, unless it removes
it first. `seen` is the container as the next plugin gets it, `asked` all changes together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shim.gen.nri.v1alpha1 import api_pb2 as nri
from shim.nri.limits import Claims, Updates, merge
from shim.nri.messages import HOOKS
from shim.nri.owners import REMOVED, Owners, split_mark
from shim.nri.resources import put

if TYPE_CHECKING:
    from collections.abc import Callable

SINGLE = {
    "io_priority": nri.IoPriority,
    "seccomp_policy": nri.SeccompPolicy,
    "scheduler": nri.LinuxSched,
    "oom_score_adj": nri.OomScoreAdj,
}
"""Messages of LinuxContainerAdjustment that stand in LinuxContainer as well, and are set as a whole."""
RDT = {"clos_id": nri.RdtClosID, "schemata": nri.RdtSchemata, "enable_monitoring": nri.RdtEnableMonitoring}


class Creation:
    """One container's creation, as the plugins are asked one after the other."""

    def __init__(self, container: nri.Container) -> None:
        """Take over `container`: it is changed."""
        self.seen = container
        self.asked = nri.ContainerAdjustment()
        self.owners = Owners()
        self.updates = Updates(self.owners, creating=container.id)
        self.evictions: list[nri.ContainerEviction] = []

    def take(self, answer: nri.CreateContainerResponse, plugin: str) -> None:
        """Add what one plugin answers; raise Conflict."""
        claims = Claims(self.owners, self.seen.id, plugin)
        adjust = answer.adjust
        self._take_maps(adjust, claims)
        self._take_lists(adjust, claims)
        self._take_args(list(adjust.args), claims)
        self._take_hooks(adjust.hooks, claims)
        self._take_linux(adjust.linux, claims)
        for limit in adjust.rlimits:
            claims.claim(nri.Rlimits, limit.type)
            self.seen.rlimits.append(limit)
            self.asked.rlimits.append(limit)
        for device in adjust.CDI_devices:
            claims.claim(nri.CdiDevices, device.name)
            self.asked.CDI_devices.append(device)
        self.updates.take(answer.update, plugin)
        self.evictions += answer.evict

    def _take_maps(self, adjust: nri.ContainerAdjustment, claims: Claims) -> None:
        seen, asked = self.seen, self.asked
        _merge_map(adjust.annotations, claims, nri.Annotations, (seen.annotations, asked.annotations))
        _merge_map(adjust.linux.sysctl, claims, nri.Sysctl, (seen.linux.sysctl, asked.linux.sysctl))
        _merge_map(adjust.linux.net_devices, claims, nri.LinuxNetDevices, (seen.linux.net_devices, asked.linux.net_devices))

    def _take_lists(self, adjust: nri.ContainerAdjustment, claims: Claims) -> None:
        seen, asked = self.seen, self.asked
        _merge_list(adjust.mounts, claims, nri.Mounts, (seen.mounts, asked.mounts), "destination")
        _merge_list(adjust.linux.devices, claims, nri.Devices, (seen.linux.devices, asked.linux.devices), "path")
        _merge_list(adjust.linux.namespaces, claims, nri.Namespace, (seen.linux.namespaces, asked.linux.namespaces), "type")
        _merge_env(adjust, claims, seen, asked)

    def _take_args(self, args: list[str], claims: Claims) -> None:
        if not args:
            return
        if not args[0]:
            claims.clear(nri.Args)
            args = args[1:]
        claims.claim(nri.Args)
        self.asked.args[:] = args
        self.seen.args[:] = args

    def _take_hooks(self, hooks: nri.Hooks, claims: Claims) -> None:
        added = [name for name in HOOKS if getattr(hooks, name)]
        for name in added:
            for target in (self.seen.hooks, self.asked.hooks):
                getattr(target, name).extend(getattr(hooks, name))
        if added:
            claims.share(nri.OciHooks)

    def _take_linux(self, linux: nri.LinuxContainerAdjustment, claims: Claims) -> None:
        targets = (self.seen.linux, self.asked.linux)
        if linux.HasField("resources"):
            merge(linux.resources, claims, [target.resources for target in targets])
        if linux.cgroups_path:
            claims.claim(nri.CgroupsPath)
            for target in targets:
                target.cgroups_path = linux.cgroups_path
        for name, field in SINGLE.items():
            if linux.HasField(name):
                claims.claim(field)
                for target in targets:
                    getattr(target, name).CopyFrom(getattr(linux, name))
        if linux.HasField("memory_policy"):
            claims.claim(nri.MemoryPolicy)
            self.asked.linux.memory_policy.CopyFrom(linux.memory_policy)
        if linux.HasField("rdt"):
            _merge_rdt(linux.rdt, claims, self.asked.linux)


def _merge_map(given: Any, claims: Claims, field: int, targets: tuple[Any, Any]) -> None:
    seen, asked = targets
    removed = {key for key, gone in map(split_mark, given) if gone}
    for key in removed:
        claims.clear(field, key)
        seen.pop(key, None)
        asked.pop(key, None)
        _set(asked, REMOVED + key, type(given[REMOVED + key])())
    for name, value in given.items():
        key, gone = split_mark(name)
        if not gone:
            claims.claim(field, key)
            _set(seen, key, value)
            _set(asked, key, value)


def _set(target: Any, key: str, value: Any) -> None:
    """Set an entry of a map, whose values may be messages."""
    if isinstance(value, str):
        target[key] = value
    else:
        target[key].CopyFrom(value)


def _merge_list(given: Any, claims: Claims, field: int, targets: tuple[Any, Any], name: str) -> None:
    """Merge entries that have a key: the removals of a plugin come before what it adds, and stay in `asked`."""
    if not given:
        return
    seen, asked = targets

    def key_of(entry: Any) -> tuple[str, bool]:
        return split_mark(getattr(entry, name))

    removals = {key_of(entry)[0]: entry for entry in given if key_of(entry)[1]}
    added = {key_of(entry)[0]: entry for entry in given if not key_of(entry)[1]}
    _clear(asked, lambda entry: key_of(entry)[0] in removals)
    for key, entry in removals.items():
        claims.clear(field, key)
        asked.append(entry)
    for key in added:
        claims.claim(field, key)
    _clear(seen, lambda entry: key_of(entry)[0] in removals or key_of(entry)[0] in added)
    _clear(asked, lambda entry: not key_of(entry)[1] and key_of(entry)[0] in added)
    seen.extend(added.values())
    asked.extend(added.values())


def _merge_env(adjust: nri.ContainerAdjustment, claims: Claims, seen: nri.Container, asked: nri.ContainerAdjustment) -> None:
    """Merge variables, which plugins see as NAME=value and set as pairs."""
    pairs = [nri.KeyValue(key=one.partition("=")[0], value=one.partition("=")[2]) for one in seen.env]
    _merge_list(adjust.env, claims, nri.Env, (pairs, asked.env), "key")
    seen.env[:] = [f"{pair.key}={pair.value}" for pair in pairs]


def _clear(entries: Any, unwanted: Callable[[Any], bool]) -> None:
    kept = [entry for entry in entries if not unwanted(entry)]
    if len(kept) != len(entries):
        del entries[:]
        entries.extend(kept)


def _merge_rdt(rdt: nri.LinuxRdt, claims: Claims, target: nri.LinuxContainerAdjustment) -> None:
    if rdt.remove:
        for field in RDT.values():
            claims.clear(field)
        target.rdt.CopyFrom(nri.LinuxRdt(remove=True))
    for name, field in RDT.items():
        if not rdt.HasField(name):
            continue
        claims.claim(field)
        if name == "schemata":
            target.rdt.schemata.CopyFrom(rdt.schemata)
        else:
            put(getattr(target.rdt, name), getattr(rdt, name).value)
