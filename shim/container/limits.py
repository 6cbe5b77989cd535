"""Arithmetic on LinuxContainerResources, in which 0 or empty means "leave as it is"."""

from __future__ import annotations

from shim.errors import InvalidArgument
from shim.gen.runtime.v1 import api_pb2

UNLIMITED = -1
SCALARS = (
    "cpu_period",
    "cpu_quota",
    "cpu_shares",
    "memory_limit_in_bytes",
    "memory_swap_limit_in_bytes",
    "cpuset_cpus",
    "cpuset_mems",
)
DEFAULT_PERIOD = 100_000
"""Microseconds; the kernel's cfs_period_us."""


def merged(old: api_pb2.LinuxContainerResources, asked: api_pb2.LinuxContainerResources) -> api_pb2.LinuxContainerResources:
    """Give `old` with what `asked` sets in its place.

    A new memory limit without one for swap takes the old one for swap away, which bounds both together: the container then
    does not swap, as one that is created with such limits. oom_score_adj belongs to the process and is set at its creation.
    """
    result = api_pb2.LinuxContainerResources()
    result.CopyFrom(old)
    if asked.memory_limit_in_bytes and not asked.memory_swap_limit_in_bytes:
        result.ClearField("memory_swap_limit_in_bytes")
    for name in SCALARS:
        if getattr(asked, name):
            setattr(result, name, getattr(asked, name))
    if asked.hugepage_limits:
        pages = {limit.page_size: limit for limit in (*old.hugepage_limits, *asked.hugepage_limits)}
        result.ClearField("hugepage_limits")
        result.hugepage_limits.extend(pages.values())
    result.unified.update(asked.unified)
    return result


def added(
    containers: api_pb2.LinuxContainerResources, overhead: api_pb2.LinuxContainerResources
) -> api_pb2.LinuxContainerResources:
    """Give what a pod may use: the sum for its containers and the overhead on top, where there is a limit at all.

    Raises InvalidArgument for a sum that no field holds.
    """
    try:
        return _added(containers, overhead)
    except ValueError as error:
        raise InvalidArgument(f"resources and overhead together are more than 64 bits hold: {error}") from error


def _added(
    containers: api_pb2.LinuxContainerResources, overhead: api_pb2.LinuxContainerResources
) -> api_pb2.LinuxContainerResources:
    result = api_pb2.LinuxContainerResources()
    result.CopyFrom(containers)
    result.cpu_period = containers.cpu_period or overhead.cpu_period
    if overhead.cpu_quota:
        ratio = (result.cpu_period or DEFAULT_PERIOD) / (overhead.cpu_period or DEFAULT_PERIOD)
        result.cpu_quota = _sum(containers.cpu_quota, round(overhead.cpu_quota * ratio))
    result.cpu_shares = containers.cpu_shares + overhead.cpu_shares
    for name in ("memory_limit_in_bytes", "memory_swap_limit_in_bytes"):
        setattr(result, name, _sum(getattr(containers, name), getattr(overhead, name)))
    pages = {limit.page_size: limit.limit for limit in containers.hugepage_limits}
    for limit in overhead.hugepage_limits:
        pages[limit.page_size] = pages.get(limit.page_size, 0) + limit.limit
    result.ClearField("hugepage_limits")
    result.hugepage_limits.extend(api_pb2.HugepageLimit(page_size=size, limit=limit) for size, limit in pages.items())
    return result


def _sum(containers: int, overhead: int) -> int:
    """Add two limits; without one for the containers the overhead alone bounds nothing."""
    if UNLIMITED in (containers, overhead):
        return UNLIMITED
    return containers + overhead if containers else 0
