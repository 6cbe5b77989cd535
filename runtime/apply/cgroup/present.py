"""Limits as they are now, for a change that names only one of two that belong together."""

from __future__ import annotations

from runtime.apply.cgroup import files
from runtime.errors import CgroupFault
from runtime.plan.cgroup import UNIFIED
from runtime.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.apply.cgroup.group import Cgroup
    from runtime.spec.resources import Cpu, Memory, Resources


def completed(group: Cgroup, resources: Resources) -> Resources:
    """Add to a change what it takes for granted: v2 limits swap without the memory, and has one file for quota and period."""
    return replace(resources, cpu=_cpu(group, resources.cpu), memory=_memory(group, resources.memory))


def _memory(group: Cgroup, memory: Memory) -> Memory:
    if memory.swap is None or memory.swap <= 0 or memory.limit is not None or group.directory("memory") is not None:
        return memory
    text = _read(group.directory(UNIFIED), "memory.max")
    return replace(memory, limit=int(text)) if text.isdigit() else memory


def _cpu(group: Cgroup, cpu: Cpu) -> Cpu:
    if bool(cpu.quota) == bool(cpu.period):
        return cpu
    v1 = group.directory("cpu")
    if v1 is None:
        quota, _, period = _read(group.directory(UNIFIED), "cpu.max").partition(" ")
    elif group.unit_record is not None:  # systemd keeps their quotient
        quota, period = _read(v1, "cpu.cfs_quota_us"), _read(v1, "cpu.cfs_period_us")
    else:
        return cpu
    return replace(
        cpu,
        quota=cpu.quota or (int(quota) if quota.isdigit() else None),
        period=cpu.period or (int(period) if period.isdigit() else None),
    )


def require_more_than_used(group: Cgroup, memory: Memory) -> None:
    """Raise CgroupFault for a v2 limit below what is in use already, which the kernel would make room for by killing.

    That is memory.checkBeforeUpdate; v1 refuses such limits by itself.
    """
    used = _read(group.directory(UNIFIED), "memory.current")
    if group.directory("memory") is not None or not used.isdigit():
        return
    for what, limit in (("memory", memory.limit), ("memory+swap", memory.swap)):
        if limit is not None and 0 < limit <= int(used):
            raise CgroupFault(f"rejecting {what} limit {limit} <= usage {used}", step="limit the container")


def _read(directory: str | None, file: str) -> str:
    """Give a file's text; nothing where the controller is not on."""
    try:
        return "" if directory is None else files.read(directory, file).strip()
    except FileNotFoundError:
        return ""
