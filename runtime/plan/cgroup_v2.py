"""linux.resources as writes to cgroup v2 files (the kernel's Documentation/admin-guide/cgroup-v2)."""

from __future__ import annotations

from runtime.errors import CgroupFault, KernelFault
from runtime.plan.cgroup import Write
from runtime.plan.cgroup_v1 import check_shares, cpuset, same_in_both

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.spec.resources import BlockIo, Cpu, Memory, Resources


def plan_v2(resources: Resources, controller: str) -> Iterator[Write]:
    """Give the writes `resources` asks of one controller, under its v1 name."""
    if controller == "cpuset":
        yield from cpuset(resources.cpu)
    elif controller == "cpu":
        yield from _cpu(resources.cpu)
    elif controller == "memory":
        yield from _memory(resources.memory)
    elif controller == "blkio":
        yield from _block_io(resources.block_io)
    elif controller == "hugetlb":
        for huge in resources.hugepage_limits:
            yield _write("hugetlb", f"hugetlb.{huge.page_size}.max", huge.limit)
            yield _write("hugetlb", f"hugetlb.{huge.page_size}.rsvd.max", huge.limit, optional=True)
    elif controller in ("net_cls", "net_prio"):
        _refuse_network(resources, controller)
    else:
        yield from same_in_both(resources, controller)


def _refuse_network(resources: Resources, controller: str) -> None:
    asked = resources.network.class_id if controller == "net_cls" else resources.network.priorities
    if asked:
        raise KernelFault(f"cgroup v2 has no {controller}", feature=controller, step="plan the cgroup")


def plan_unified(resources: Resources) -> Iterator[Write]:
    """Give the writes of linux.resources.unified, which come last and so decide."""
    for name, value in resources.unified:
        controller = name.partition(".")[0]
        for line in value.splitlines() or [""]:
            yield _write("" if controller == "cgroup" else controller, name, line)


def _write(controller: str, file: str, value: int | str, *, optional: bool = False, postponable: bool = False) -> Write:
    return Write(controller=controller, choices=((file, str(value)),), optional=optional, postponable=postponable)


def weight_of_shares(shares: int) -> int:
    """Turn v1 CPU shares (2 to 262144, 1024 by default) into a v2 weight (1 to 10000, 100 by default).

    Both ends and the defaults meet on a quadratic of the logarithm, the curve runc 1.4 and crun 1.23 agreed on.
    """
    from math import ceil, log2

    power = log2(shares)
    return min(10000, max(1, ceil(round(10 ** ((power * power + 125 * power) / 612 - 7 / 34), 6))))


def _cpu(cpu: Cpu) -> Iterator[Write]:
    if cpu.realtime_period or cpu.realtime_runtime:
        raise KernelFault("cgroup v2 has no real-time CPU limits", feature="real-time limits", step="plan the cgroup")
    if cpu.shares:
        check_shares(cpu.shares)
    if cpu.idle is not None:
        yield _write("cpu", "cpu.idle", cpu.idle)
    if cpu.shares and not cpu.idle:  # the kernel gives an idle cgroup no other weight than the least
        yield _write("cpu", "cpu.weight", weight_of_shares(cpu.shares))
    if cpu.burst is not None:
        yield _write("cpu", "cpu.max.burst", cpu.burst, postponable=True)
    if cpu.quota or cpu.period:
        quota = str(cpu.quota) if cpu.quota and cpu.quota > 0 else "max"
        yield _write("cpu", "cpu.max", f"{quota} {cpu.period}" if cpu.period else quota)


def _amount(value: int) -> int | str:
    return "max" if value == -1 else value


def _memory(memory: Memory) -> Iterator[Write]:
    if memory.swappiness:
        raise KernelFault("cgroup v2 has no memory swappiness", feature="memory swappiness", step="plan the cgroup")
    swap = swap_alone(memory)
    if swap is not None:
        yield _write("memory", "memory.swap.max", swap, optional=swap in ("max", 0))
    if memory.limit:
        yield _write("memory", "memory.max", _amount(memory.limit))
    if memory.reservation:
        yield _write("memory", "memory.low", _amount(memory.reservation))


def swap_alone(memory: Memory) -> int | str | None:
    """Give swap alone ("max" without a limit, None when not asked for): the document counts memory and swap together."""
    if memory.limit == -1 and not memory.swap:
        return "max"
    if not memory.swap:
        return None
    if memory.swap == -1:
        return "max"
    if not memory.limit or memory.limit == -1:
        raise CgroupFault(f"memory swap {memory.swap} needs a memory limit beside it", step="plan the cgroup")
    return memory.swap - memory.limit


def io_weight(weight: int) -> int:
    """Turn a blkio weight (10 to 1000) into a v2 weight (1 to 10000)."""
    return 1 + (weight - 10) * 9999 // 990


def _block_io(block_io: BlockIo) -> Iterator[Write]:
    if block_io.weight:
        choices = (("io.bfq.weight", str(block_io.weight)), ("io.weight", f"default {io_weight(block_io.weight)}"))
        yield Write(controller="io", choices=choices)
    for device in block_io.weight_devices:
        if device.weight:
            yield _write("io", "io.bfq.weight", f"{device.major}:{device.minor} {device.weight}")
    for name, throttles in (
        ("rbps", block_io.throttle_read_bps),
        ("wbps", block_io.throttle_write_bps),
        ("riops", block_io.throttle_read_iops),
        ("wiops", block_io.throttle_write_iops),
    ):
        for throttle in throttles:
            rate = throttle.rate or "max"
            yield _write("io", "io.max", f"{throttle.major}:{throttle.minor} {name}={rate}")
