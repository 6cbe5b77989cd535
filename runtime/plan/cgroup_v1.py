"""linux.resources as writes to cgroup v1 files (the kernel's Documentation/admin-guide/cgroup-v1)."""

from __future__ import annotations

from runtime.errors import CgroupFault
from runtime.plan.cgroup import Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.spec.resources import BlockIo, Cpu, Memory, RdmaLimit, Resources

SHARES = (2, 262144)
"""What cpu.shares takes; the kernel would clamp in silence."""


def plan_v1(resources: Resources, controller: str) -> Iterator[Write]:
    """Give the writes `resources` asks of one controller. 0 means "not set" where runc has it so."""
    if controller == "cpuset":
        yield from cpuset(resources.cpu)
    elif controller == "cpu":
        yield from _cpu(resources.cpu)
    elif controller == "memory":
        yield from _memory(resources.memory)
    elif controller == "blkio":
        yield from _block_io(resources.block_io)
    else:
        yield from _small(resources, controller)


def _small(resources: Resources, controller: str) -> Iterator[Write]:
    if controller == "hugetlb":
        for huge in resources.hugepage_limits:
            yield _write("hugetlb", f"hugetlb.{huge.page_size}.limit_in_bytes", huge.limit)
            yield _write("hugetlb", f"hugetlb.{huge.page_size}.rsvd.limit_in_bytes", huge.limit, optional=True)
    elif controller == "net_cls" and resources.network.class_id:
        yield _write("net_cls", "net_cls.classid", resources.network.class_id)
    elif controller == "net_prio":
        for priority in resources.network.priorities:
            yield _write("net_prio", "net_prio.ifpriomap", f"{priority.name} {priority.priority}")
    else:
        yield from same_in_both(resources, controller)


def same_in_both(resources: Resources, controller: str) -> Iterator[Write]:
    """Give the writes of the controllers whose files are the same in both versions."""
    if controller == "pids" and resources.pids_limit is not None:
        # 0 is as close as can be: a container has one process at least (and systemd takes no 0), so it is 1 with runc, too
        yield _write("pids", "pids.max", max(1, resources.pids_limit) if resources.pids_limit >= 0 else "max")
    elif controller == "rdma":
        for rdma in resources.rdma:
            yield _write("rdma", "rdma.max", _rdma_value(rdma))


def _write(controller: str, file: str, value: int | str, *, optional: bool = False, postponable: bool = False) -> Write:
    return Write(controller=controller, choices=((file, str(value)),), optional=optional, postponable=postponable)


def _rdma_value(rdma: RdmaLimit) -> str:
    parts = [rdma.device]
    if rdma.hca_handles is not None:
        parts.append(f"hca_handle={rdma.hca_handles}")
    if rdma.hca_objects is not None:
        parts.append(f"hca_object={rdma.hca_objects}")
    return " ".join(parts)


def check_shares(shares: int) -> None:
    """Refuse CPU shares that no kernel takes as given."""
    if not SHARES[0] <= shares <= SHARES[1]:
        raise CgroupFault(f"cpu shares {shares} are not between {SHARES[0]} and {SHARES[1]}", step="plan the cgroup")


def cpuset(cpu: Cpu) -> Iterator[Write]:
    """Give the cpuset's writes, which are the same in both versions."""
    if cpu.cpus:
        yield _write("cpuset", "cpuset.cpus", cpu.cpus)
    if cpu.mems:
        yield _write("cpuset", "cpuset.mems", cpu.mems)


def _cpu(cpu: Cpu) -> Iterator[Write]:
    if cpu.realtime_period:
        yield _write("cpu", "cpu.rt_period_us", cpu.realtime_period, postponable=True)
    if cpu.realtime_runtime:
        yield _write("cpu", "cpu.rt_runtime_us", cpu.realtime_runtime)
    if cpu.shares:
        check_shares(cpu.shares)
    if cpu.idle is not None:
        yield _write("cpu", "cpu.idle", cpu.idle)
    if cpu.shares and not cpu.idle:  # the kernel gives an idle cgroup no other shares than the least
        yield _write("cpu", "cpu.shares", cpu.shares)
    if cpu.period:
        yield _write("cpu", "cpu.cfs_period_us", cpu.period, postponable=True)
    if cpu.burst is not None:
        yield _write("cpu", "cpu.cfs_burst_us", cpu.burst, postponable=True)
    if cpu.quota:
        yield _write("cpu", "cpu.cfs_quota_us", cpu.quota)


def _memory(memory: Memory) -> Iterator[Write]:
    swap = memory.swap
    if memory.limit == -1 and not swap:
        swap = -1  # memory plus swap may not stay below the memory limit that is being lifted
    if memory.limit:
        yield _write("memory", "memory.limit_in_bytes", memory.limit, postponable=True)
    if swap:
        # A kernel without swap accounting has no such file; lifting a limit that cannot exist is no failure.
        yield _write("memory", "memory.memsw.limit_in_bytes", swap, optional=swap == -1, postponable=not memory.limit)
    if memory.reservation:
        yield _write("memory", "memory.soft_limit_in_bytes", memory.reservation)
    if memory.kernel_tcp:
        yield _write("memory", "memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp)
    if memory.disable_oom_killer:
        yield _write("memory", "memory.oom_control", 1)
    if memory.swappiness is not None:
        if memory.swappiness > 100:
            raise CgroupFault(f"memory swappiness {memory.swappiness} is not between 0 and 100", step="plan the cgroup")
        yield _write("memory", "memory.swappiness", memory.swappiness)


def _block_io(block_io: BlockIo) -> Iterator[Write]:
    if block_io.weight:
        yield _weight(("blkio.weight", "blkio.bfq.weight"), str(block_io.weight))
    if block_io.leaf_weight:
        yield _weight(("blkio.leaf_weight",), str(block_io.leaf_weight))
    for device in block_io.weight_devices:
        number = f"{device.major}:{device.minor}"
        if device.weight:
            yield _weight(("blkio.weight_device", "blkio.bfq.weight_device"), f"{number} {device.weight}")
        if device.leaf_weight:
            yield _weight(("blkio.leaf_weight_device",), f"{number} {device.leaf_weight}")
    for file, throttles in (
        ("read_bps", block_io.throttle_read_bps),
        ("write_bps", block_io.throttle_write_bps),
        ("read_iops", block_io.throttle_read_iops),
        ("write_iops", block_io.throttle_write_iops),
    ):
        for throttle in throttles:
            yield _write("blkio", f"blkio.throttle.{file}_device", f"{throttle.major}:{throttle.minor} {throttle.rate}")


def _weight(files: tuple[str, ...], value: str) -> Write:
    return Write(controller="blkio", choices=tuple((file, value) for file in files))
