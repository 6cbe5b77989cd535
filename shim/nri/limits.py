"""Limits that several plugins ask for, put together field by field. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shim.gen.nri.v1alpha1 import api_pb2 as nri
from shim.nri.owners import Conflict
from shim.nri.resources import CPU, CPU_LISTS, MEMORY, put

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shim.nri.owners import Owners

MEMORY_FIELDS = {
    "limit": nri.MemLimit,
    "reservation": nri.MemReservation,
    "swap": nri.MemSwapLimit,
    "kernel": nri.MemKernelLimit,
    "kernel_tcp": nri.MemTCPLimit,
    "swappiness": nri.MemSwappiness,
    "disable_oom_killer": nri.MemDisableOomKiller,
    "use_hierarchy": nri.MemUseHierarchy,
}
CPU_FIELDS = {
    "shares": nri.CPUShares,
    "quota": nri.CPUQuota,
    "period": nri.CPUPeriod,
    "realtime_runtime": nri.CPURealtimeRuntime,
    "realtime_period": nri.CPURealtimePeriod,
}
LIST_FIELDS = {"cpus": nri.CPUSetCPUs, "mems": nri.CPUSetMems}


class Claims:
    """The fields of one container that one plugin claims."""

    def __init__(self, owners: Owners, container: str, plugin: str) -> None:
        self._owners = owners
        self._container = container
        self.plugin = plugin

    def claim(self, field: int, key: str | None = None) -> None:
        """See Owners.claim."""
        self._owners.claim(self._container, field, self.plugin, key)

    def clear(self, field: int, key: str | None = None) -> None:
        """See Owners.clear."""
        self._owners.clear(self._container, field, self.plugin, key)

    def share(self, field: int) -> None:
        """See Owners.share."""
        self._owners.share(self._container, field, self.plugin)


def merge(asked: nri.LinuxResources, claims: Claims, targets: Sequence[nri.LinuxResources]) -> None:
    """Claim what `asked` sets, and set it in all targets; raise Conflict."""
    for part, names, fields in (("memory", MEMORY, MEMORY_FIELDS), ("cpu", CPU, CPU_FIELDS)):
        given = getattr(asked, part)
        for name in names:
            if given.HasField(name):
                claims.claim(fields[name])
                _put_all((getattr(target, part) for target in targets), name, getattr(given, name).value)
    for name in CPU_LISTS:
        if value := getattr(asked.cpu, name):
            claims.claim(LIST_FIELDS[name])
            for target in targets:
                setattr(target.cpu, name, value)
    _merge_rest(asked, claims, targets)


def _merge_rest(asked: nri.LinuxResources, claims: Claims, targets: Sequence[nri.LinuxResources]) -> None:
    for limit in asked.hugepage_limits:
        claims.claim(nri.HugepageLimits, limit.page_size)
        for target in targets:
            _set_pages(target, limit)
    for key in asked.unified:
        claims.claim(nri.CgroupsUnified, key)
    for target in targets:
        target.unified.update(asked.unified)
        target.devices.extend(asked.devices)
    for name, field in (("blockio_class", nri.BlockioClass), ("rdt_class", nri.RdtClass)):
        if asked.HasField(name):
            claims.claim(field)
            _put_all(targets, name, getattr(asked, name).value)
    if asked.HasField("pids"):
        claims.claim(nri.PidsLimit)
        for target in targets:
            target.pids.CopyFrom(asked.pids)


def _set_pages(target: nri.LinuxResources, limit: nri.HugepageLimit) -> None:
    for known in target.hugepage_limits:
        if known.page_size == limit.page_size:
            known.limit = limit.limit
            return
    target.hugepage_limits.append(limit)


def _put_all(parts: Iterable[Any], name: str, value: Any) -> None:
    for part in parts:
        put(getattr(part, name), value)


class Updates:
    """Updates of containers that plugins ask for while a request is served, one a container."""

    def __init__(self, owners: Owners, *, creating: str = "", own: tuple[str, nri.LinuxResources] | None = None) -> None:
        """Expect no update of `creating`; `own` is the container that is updated, and what is asked for it."""
        self._owners = owners
        self._creating = creating
        self._found: dict[str, nri.ContainerUpdate] = {}
        self._own = own

    def take(self, updates: Iterable[nri.ContainerUpdate], plugin: str) -> None:
        """Add what one plugin asks; raise Conflict, unless the plugin does not insist."""
        for update in updates:
            if update.container_id == self._creating:
                raise Conflict(f"plugin {plugin!r} asks to update container {self._creating}, which is being created")
            try:
                self._merge(update, plugin)
            except Conflict:
                if not update.ignore_failure:
                    raise

    def _merge(self, update: nri.ContainerUpdate, plugin: str) -> None:
        key = update.container_id
        known = self._found.get(key)
        merged = nri.ContainerUpdate()
        if known is not None:
            merged.CopyFrom(known)
            merged.ignore_failure = known.ignore_failure and update.ignore_failure
        else:
            merged.container_id, merged.ignore_failure = key, update.ignore_failure
            if self._own is not None and self._own[0] == key:
                merged.linux.resources.CopyFrom(self._own[1])
        if update.HasField("linux") and update.linux.HasField("resources"):
            merge(update.linux.resources, Claims(self._owners, key, plugin), (merged.linux.resources,))
        self._found[key] = merged

    @property
    def others(self) -> list[nri.ContainerUpdate]:
        """The updates of containers other than the one that is updated."""
        return [update for key, update in self._found.items() if self._own is None or key != self._own[0]]

    @property
    def own(self) -> nri.LinuxResources:
        """What the container that is updated gets."""
        assert self._own is not None
        key, asked = self._own
        return self._found[key].linux.resources if key in self._found else asked
