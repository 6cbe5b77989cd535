"""linux.resources as properties of a systemd unit (systemd.resource-control(5)): pure.

systemd has to know what it can, or it would write its own values over ours when it looks at the unit again; what it has no
property for is written to the cgroup alone.
"""

from __future__ import annotations

from runtime.errors import CgroupFault
from runtime.plan.cgroup_devices import device_policy
from runtime.plan.cgroup_v1 import check_shares
from runtime.plan.cgroup_v2 import io_weight, swap_alone, weight_of_shares
from runtime.plan.systemd import Property
from runtime.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.plan.cgroup_devices import Key
    from runtime.spec.resources import Cpu, DeviceRule, Resources

INFINITY = (1 << 64) - 1
_PERIOD = 100_000
_SECOND = 1_000_000
_PERCENT = _SECOND // 100
"""systemd keeps a CPU quota in whole percents of one CPU."""
_MEMORY = {
    "memory.min": "MemoryMin", "memory.low": "MemoryLow", "memory.high": "MemoryHigh", "memory.max": "MemoryMax",
    "memory.swap.max": "MemorySwapMax",
}  # fmt: skip
_MASKS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
_STEP = "plan the unit"


def limit_properties(resources: Resources, *, v2: bool) -> tuple[Property, ...]:
    """Give the properties that limit a unit as `resources` does, devices left out; raise CgroupFault for impossible values."""
    planned = [*_cpu(resources.cpu, v2=v2), *_memory(resources, v2=v2)]
    if resources.pids_limit:
        planned.append(_number("TasksMax", _amount(resources.pids_limit)))
    weight = resources.block_io.weight
    if weight:
        planned.append(_number("IOWeight", io_weight(weight)) if v2 else _number("BlockIOWeight", weight))
    if v2:
        planned += _unified(dict(resources.unified))
    return tuple(planned)


def rounded(resources: Resources) -> Resources:
    """Give `resources` as systemd keeps it, so that cgroup and unit say the same: a round CPU quota, idle or a weight."""
    cpu = resources.cpu
    if dict(resources.unified).get("cpu.idle", "").strip() == "1":
        resources = replace(resources, unified=tuple(pair for pair in resources.unified if pair[0] != "cpu.weight"))
    if not cpu.quota or cpu.quota < 0:
        return resources
    period = cpu.period or _PERIOD
    return replace(resources, cpu=replace(cpu, quota=_quota(cpu.quota, period) * period // _SECOND))


def is_idle_with_weight(resources: Resources) -> bool:
    """Tell whether a weight is asked for where there is none to be had."""
    files = dict(resources.unified)
    return bool(resources.cpu.idle and resources.cpu.shares) or (
        "cpu.weight" in files and files.get("cpu.idle", "").strip() == "1"
    )


def _quota(quota: int, period: int) -> int:
    """Give microseconds a second, rounded up to what systemd can keep."""
    return -(-quota * _SECOND // period // _PERCENT) * _PERCENT


def _number(name: str, value: int) -> Property:
    return Property(name=name, signature="t", value=value)


def _amount(value: int) -> int:
    return INFINITY if value < 0 else value


def _cpu(cpu: Cpu, *, v2: bool) -> Iterator[Property]:
    if cpu.shares:
        check_shares(cpu.shares)
    if v2 and cpu.idle:
        yield _number("CPUWeight", 0)  # systemd's word for cpu.idle
    elif cpu.shares:
        yield _number("CPUWeight", weight_of_shares(cpu.shares)) if v2 else _number("CPUShares", cpu.shares)
    yield from _bandwidth(cpu.quota or 0, cpu.period or 0)
    for file, text in (("cpuset.cpus", cpu.cpus), ("cpuset.mems", cpu.mems)):
        if text:
            yield Property(name=_MASKS[file], signature="ay", value=mask(text))


def _bandwidth(quota: int, period: int) -> Iterator[Property]:
    if period:
        yield _number("CPUQuotaPeriodUSec", period)
    if quota or period:
        yield _number("CPUQuotaPerSecUSec", _quota(quota, period or _PERIOD) if quota > 0 else INFINITY)


def mask(text: str) -> bytes:
    """Give the bits of a list such as 0-3,7, lowest byte first; raise CgroupFault for anything else."""
    from runtime.spec.numbers import WANTED, bits, is_number_list

    numbers = ",".join(part for part in text.replace(" ", "").split(",") if part)
    if not is_number_list(numbers):
        raise CgroupFault(f'"{text}" is not {WANTED}', step=_STEP)
    found = bits(numbers)
    if not found:
        raise CgroupFault(f'"{text}" names no number', step=_STEP)
    return found.to_bytes((found.bit_length() + 7) // 8, "little")


def _memory(resources: Resources, *, v2: bool) -> Iterator[Property]:
    memory = resources.memory
    if memory.limit:
        yield _number("MemoryMax" if v2 else "MemoryLimit", _amount(memory.limit))
    if not v2:
        return
    if memory.reservation:
        yield _number("MemoryLow", _amount(memory.reservation))
    swap = swap_alone(memory)
    if swap is not None:
        yield _number("MemorySwapMax", INFINITY if swap == "max" else int(swap))


def _unified(files: dict[str, str]) -> Iterator[Property]:
    for file, text in files.items():
        value = text.strip()
        if file in _MEMORY:
            yield _number(_MEMORY[file], _unified_number(file, value))
        elif file == "pids.max":
            yield _number("TasksMax", max(1, _unified_number(file, value)))
        elif file == "cpu.weight" and files.get("cpu.idle", "0").strip() != "1":
            yield _number("CPUWeight", _unified_number(file, value))
        elif file == "cpu.idle" and value == "1":
            yield _number("CPUWeight", 0)
        elif file == "cpu.max":
            quota, _, period = value.partition(" ")
            yield from _bandwidth(-1 if quota == "max" else _unified_number(file, quota), _period(period.strip()))
        elif file in _MASKS:
            yield Property(name=_MASKS[file], signature="ay", value=mask(value))


def _period(text: str) -> int:
    if text and not (text.isdecimal() and int(text)):
        raise CgroupFault(f'"{text}" is no period for cpu.max: it is a number of microseconds', step=_STEP)
    return int(text or _PERIOD)


def _unified_number(file: str, text: str) -> int:
    if text == "max":
        return INFINITY
    if not text.isdecimal():
        raise CgroupFault(f'"{text}" is no value for {file}: it is a number or max', step=_STEP)
    return int(text)


def device_properties(rules: tuple[DeviceRule, ...]) -> tuple[Property, ...]:
    """Give the properties that let systemd allow what our own filter allows; it would judge differently after a reload.

    systemd knows lists of what is allowed only. A policy that forbids single devices is left to our filter.
    """
    policy = device_policy(rules)
    allowed = [] if policy.allow else [(path, access) for key, access in policy.exceptions if (path := _device(key))]
    return (
        Property(name="DeviceAllow", signature="a(ss)", value=[]),  # what was allowed before goes
        Property(name="DevicePolicy", signature="s", value="auto" if policy.allow else "strict"),
        *([Property(name="DeviceAllow", signature="a(ss)", value=allowed)] if allowed else []),
    )


def _device(key: Key) -> str:
    """Spell a device as systemd does; "" for one number of every major, which it cannot."""
    kind, major, minor = key
    name = "block" if kind == "b" else "char"
    if major is None:
        return f"{name}-*" if minor is None else ""
    return f"{name}-{major}" if minor is None else f"/dev/{name}/{major}:{minor}"
