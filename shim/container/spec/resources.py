"""Limits: LinuxContainerResources as OCI resources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shim.container.spec.host import CgroupLayout
from shim.errors import InvalidArgument

if TYPE_CHECKING:
    from shim.container.spec.host import HostFacts
    from shim.container.spec.inputs import SpecSettings
    from shim.gen.runtime.v1.api_pb2 import LinuxContainerResources


def linux_resources(
    asked: LinuxContainerResources, host: HostFacts, settings: SpecSettings
) -> tuple[dict[str, Any], list[str]]:
    """Give linux.resources without devices, and notes; a zero means "not set", as everywhere in the CRI.

    Without a swap limit, swap is limited to the memory limit, so that a container does not swap by default (OCI counts
    memory and swap together, as the CRI does). Raises InvalidArgument for values no controller takes.
    """
    resources: dict[str, Any] = {}
    cpu = _set(
        period=_positive(asked.cpu_period, "cpu_period"),
        quota=asked.cpu_quota,
        shares=_positive(asked.cpu_shares, "cpu_shares"),
        cpus=_cpu_list(asked.cpuset_cpus, "cpuset_cpus"),
        mems=_cpu_list(asked.cpuset_mems, "cpuset_mems"),
    )
    if cpu:
        resources["cpu"] = cpu
    memory = _memory(asked, host)
    if memory:
        resources["memory"] = memory
    if asked.unified:
        if host.cgroup_layout is not CgroupLayout.V2:
            raise InvalidArgument(f"linux.resources.unified needs cgroup v2, and this node runs {host.cgroup_layout}")
        resources["unified"] = _unified(dict(asked.unified))
    notes = []
    if asked.hugepage_limits:
        if host.hugetlb_controller:
            resources["hugepageLimits"] = [{"pageSize": x.page_size, "limit": x.limit} for x in asked.hugepage_limits]
        elif settings.tolerate_missing_hugetlb:
            notes.append("huge page limits are left out: this node has no hugetlb controller")
        else:
            raise InvalidArgument("linux.resources.hugepage_limits needs the hugetlb controller, which this node lacks")
    return resources, notes


def oom_score_adj(asked: LinuxContainerResources, host: HostFacts) -> tuple[int, list[str]]:
    """Give oom_score_adj, not below what the daemon may set (proc(5): lowering it needs CAP_SYS_RESOURCE)."""
    value = asked.oom_score_adj
    if not -1000 <= value <= 1000:
        raise InvalidArgument(f"linux.resources.oom_score_adj {value} is outside -1000..1000")
    if value < host.oom_score_adj_floor:
        note = f"oom_score_adj {value} is raised to {host.oom_score_adj_floor}: the daemon lacks CAP_SYS_RESOURCE to go lower"
        return host.oom_score_adj_floor, [note]
    return value, []


def _memory(asked: LinuxContainerResources, host: HostFacts) -> dict[str, int]:
    limit, swap = asked.memory_limit_in_bytes, asked.memory_swap_limit_in_bytes
    if limit < -1:
        raise InvalidArgument(f"linux.resources.memory_limit_in_bytes {limit} is below -1")
    if swap < -1 or 0 < swap < limit:
        raise InvalidArgument(f"linux.resources.memory_swap_limit_in_bytes {swap} is below memory_limit_in_bytes {limit}")
    memory = _set(limit=limit)
    if host.swap_controller:
        memory |= _set(swap=swap or limit)
    return memory


def _set(**values: int | str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _positive(value: int, name: str) -> int:
    if value < 0:
        raise InvalidArgument(f"linux.resources.{name} {value} is negative")
    return value


def _cpu_list(text: str, name: str) -> str:
    """Pass a list like "0-3,7" (cpuset(7)); anything else would go into a kernel file unread."""
    if text and not set(text) <= frozenset("0123456789,-"):
        raise InvalidArgument(f"linux.resources.{name} {text!r} is no list of numbers and ranges")
    return text


def _unified(values: dict[str, str]) -> dict[str, str]:
    """Refuse names that would be paths: each becomes a file name below the container's cgroup."""
    for name in values:
        if "/" in name or "." not in name or name.startswith("."):
            raise InvalidArgument(f"linux.resources.unified[{name!r}] is no name of a cgroup file")
    return values
