"""Limits in three languages: NRI's, the CRI's and the OCI runtime-spec's. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shim.gen.nri.v1alpha1 import api_pb2 as nri
from shim.gen.runtime.v1 import api_pb2 as cri

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

Json = dict[str, Any]

MEMORY = {
    "limit": "limit",
    "reservation": "reservation",
    "swap": "swap",
    "kernel": "kernel",
    "kernel_tcp": "kernelTCP",
    "swappiness": "swappiness",
    "disable_oom_killer": "disableOOMKiller",
    "use_hierarchy": "useHierarchy",
}
"""Optional fields of LinuxMemory, and the runtime-spec's names of them."""
CPU = {
    "shares": "shares",
    "quota": "quota",
    "period": "period",
    "realtime_runtime": "realtimeRuntime",
    "realtime_period": "realtimePeriod",
}
"""The same of LinuxCPU; cpus and mems are plain strings in both."""
CPU_LISTS = ("cpus", "mems")


def put(optional: Any, value: Any) -> None:
    """Set an Optional… message, also to a zero."""
    optional.value = value
    optional.SetInParent()


def from_oci(resources: Mapping[str, Any]) -> nri.LinuxResources:
    """Give linux.resources of a config.json."""
    result = nri.LinuxResources()
    for names, key, part in ((MEMORY, "memory", result.memory), (CPU, "cpu", result.cpu)):
        given = resources.get(key, {})
        for name, word in names.items():
            if given.get(word) is not None:
                put(getattr(part, name), given[word])
    for name in CPU_LISTS:
        setattr(result.cpu, name, resources.get("cpu", {}).get(name, ""))
    for limit in resources.get("hugepageLimits", []):
        result.hugepage_limits.add(page_size=limit["pageSize"], limit=limit["limit"])
    for rule in resources.get("devices", []):
        device = result.devices.add(allow=rule["allow"], type=rule.get("type", ""), access=rule.get("access", ""))
        for name in ("major", "minor"):
            if rule.get(name) is not None:
                put(getattr(device, name), rule[name])
    if "pids" in resources:
        result.pids.limit = resources["pids"].get("limit", 0)
        result.pids.SetInParent()
    result.unified.update(resources.get("unified", {}))
    return result


def from_cri(asked: cri.LinuxContainerResources) -> nri.LinuxResources:
    """Give what a CRI request sets; a zero there means "not set"."""
    result = nri.LinuxResources()
    for optional, value in (
        ("shares", asked.cpu_shares),
        ("quota", asked.cpu_quota),
        ("period", asked.cpu_period),
    ):
        if value:
            put(getattr(result.cpu, optional), value)
    result.cpu.cpus, result.cpu.mems = asked.cpuset_cpus, asked.cpuset_mems
    if asked.memory_limit_in_bytes:
        put(result.memory.limit, asked.memory_limit_in_bytes)
    if asked.memory_swap_limit_in_bytes:
        put(result.memory.swap, asked.memory_swap_limit_in_bytes)
    for limit in asked.hugepage_limits:
        result.hugepage_limits.add(page_size=limit.page_size, limit=limit.limit)
    result.unified.update(asked.unified)
    return result


def to_cri(wanted: nri.LinuxResources) -> tuple[cri.LinuxContainerResources, Json]:
    """Give a CRI request that asks for as much, and as linux.resources what the CRI has no field for."""
    cpu, memory = wanted.cpu, wanted.memory
    result = cri.LinuxContainerResources(
        cpu_shares=cpu.shares.value,
        cpu_quota=cpu.quota.value,
        cpu_period=cpu.period.value,
        cpuset_cpus=cpu.cpus,
        cpuset_mems=cpu.mems,
        memory_limit_in_bytes=memory.limit.value,
        memory_swap_limit_in_bytes=memory.swap.value,
        unified=wanted.unified,
    )
    for limit in wanted.hugepage_limits:
        result.hugepage_limits.add(page_size=limit.page_size, limit=limit.limit)
    extra: Json = {}
    for section, names, part, known in (
        ("memory", MEMORY, memory, {"limit", "swap"}),
        ("cpu", CPU, cpu, {"shares", "quota", "period"}),
    ):
        given = {word: value for word, value in given_of(part, names).items() if word not in known}
        if given:
            extra[section] = given
    if wanted.HasField("pids"):
        extra["pids"] = {"limit": wanted.pids.limit}
    return result, extra


def given_of(part: Message, names: Mapping[str, str]) -> Json:
    """Give the optional fields of a message that are set, by the runtime-spec's names."""
    return {word: getattr(part, name).value for name, word in names.items() if part.HasField(name)}
