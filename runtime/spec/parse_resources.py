"""Parse linux.resources of config.json (config-linux.md "Control groups"), and the document `update --resources` reads."""

from __future__ import annotations

from runtime.spec.reader import I32, I64, U16, U32, U64, Reader
from runtime.spec.resources import (
    BlockIo,
    Cpu,
    DeviceRule,
    HugepageLimit,
    InterfacePriority,
    Memory,
    Network,
    RdmaLimit,
    Resources,
    ThrottleDevice,
    WeightDevice,
)


def parse_resources(at: Reader) -> Resources:
    """Read /linux/resources."""
    return Resources(
        devices=at.each("devices", _device_rule),
        memory=at.part("memory", _memory, Memory()),
        cpu=at.part("cpu", _cpu, Cpu()),
        pids_limit=at.maybe("pids", _pids),
        block_io=at.part("blockIO", _block_io, BlockIo()),
        hugepage_limits=at.each("hugepageLimits", _hugepage_limit),
        network=at.part("network", _network, Network()),
        rdma=_rdma(at),
        unified=at.pairs("unified"),
    )


def _device_rule(at: Reader) -> DeviceRule:
    return DeviceRule(
        allow=at.flag("allow"),
        type=at.text("type") or "a",
        major=_number_or_any(at, "major"),
        minor=_number_or_any(at, "minor"),
        access=_access(at.text("access")),
    )


def _access(text: str) -> str:
    """Give the accesses of a rule; an "a" beside others, which v1's files know, says nothing more, as with runc."""
    return (text.replace("a", "") or text) if text else "rwm"


def _number_or_any(at: Reader, key: str) -> int | None:
    """Read a device number; -1 is the wildcard as absence is."""
    value = at.integer(key, (-1, U32[1]))
    return None if value == -1 else value


def _memory(at: Reader) -> Memory:
    limit = (-1, I64[1])
    return Memory(
        limit=at.integer("limit", limit),
        reservation=at.integer("reservation", limit),
        swap=at.integer("swap", limit),
        kernel=at.integer("kernel", limit),
        kernel_tcp=at.integer("kernelTCP", limit),
        swappiness=at.integer("swappiness", U64),
        disable_oom_killer=at.maybe_flag("disableOOMKiller"),
        use_hierarchy=at.maybe_flag("useHierarchy"),
        check_before_update=at.maybe_flag("checkBeforeUpdate"),
    )


def _cpu(at: Reader) -> Cpu:
    return Cpu(
        shares=at.integer("shares", U64),
        quota=at.integer("quota", I64),
        burst=at.integer("burst", U64),
        period=at.integer("period", U64),
        realtime_runtime=at.integer("realtimeRuntime", I64),
        realtime_period=at.integer("realtimePeriod", U64),
        cpus=at.text("cpus"),
        mems=at.text("mems"),
        idle=at.integer("idle", I64),
    )


def _pids(at: Reader) -> int | None:
    return at.integer("limit", I64)


def _block_io(at: Reader) -> BlockIo:
    return BlockIo(
        weight=at.integer("weight", U16),
        leaf_weight=at.integer("leafWeight", U16),
        weight_devices=at.each("weightDevice", _weight_device),
        throttle_read_bps=at.each("throttleReadBpsDevice", _throttle),
        throttle_write_bps=at.each("throttleWriteBpsDevice", _throttle),
        throttle_read_iops=at.each("throttleReadIOPSDevice", _throttle),
        throttle_write_iops=at.each("throttleWriteIOPSDevice", _throttle),
    )


def _weight_device(at: Reader) -> WeightDevice:
    return WeightDevice(
        major=at.need_integer("major", U32),
        minor=at.need_integer("minor", U32),
        weight=at.integer("weight", U16),
        leaf_weight=at.integer("leafWeight", U16),
    )


def _throttle(at: Reader) -> ThrottleDevice:
    return ThrottleDevice(
        major=at.need_integer("major", U32), minor=at.need_integer("minor", U32), rate=at.need_integer("rate", U64)
    )


def _hugepage_limit(at: Reader) -> HugepageLimit:
    # runc reads members in any case; this one is met in lower case
    return HugepageLimit(page_size=at.text("pagesize") or at.need_text("pageSize"), limit=at.need_integer("limit", U64))


def _network(at: Reader) -> Network:
    return Network(class_id=at.integer("classID", U32), priorities=at.each("priorities", _priority))


def _priority(at: Reader) -> InterfacePriority:
    return InterfacePriority(name=at.need_text("name"), priority=at.need_integer("priority", U32))


def _rdma(at: Reader) -> tuple[RdmaLimit, ...]:
    devices = at.child("rdma")
    if devices is None:
        return ()
    limits = []
    for name in devices.value:
        device = devices.child(name)
        if device is not None:
            handles, objects = device.integer("hcaHandles", (0, I32[1])), device.integer("hcaObjects", (0, I32[1]))
            limits.append(RdmaLimit(device=name, hca_handles=handles, hca_objects=objects))
    return tuple(limits)
