"""What a container uses, read from its cgroup, in the shape of runc's `events`: cpu times in nanoseconds, sizes in bytes."""

from __future__ import annotations

import os

from runtime.apply.cgroup import files
from runtime.plan.cgroup import UNIFIED
from runtime.spec.numbers import numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.apply.cgroup.group import Cgroup

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_NO_LIMIT = (1 << 64) - 1


def usage(group: Cgroup) -> dict[str, Any]:
    """Give what can be known; a controller the container does not have is empty, a file the kernel lacks counts as 0."""
    found: dict[str, Any] = {"cpu": {}, "cpuset": _cpuset(group), "memory": {}, "pids": {}, "blkio": {}}
    for name, v1, v2 in (("cpu", _cpu_v1, _cpu_v2), ("memory", _memory_v1, _memory_v2), ("pids", _pids, _pids)):
        legacy, unified = group.directory(name), group.directory(UNIFIED)
        if legacy is not None:
            found[name] = v1(legacy, group)
        elif unified is not None and os.path.exists(f"{unified}/{name}.stat" if name != "pids" else f"{unified}/pids.current"):
            found[name] = v2(unified, group)
    blkio, unified = group.directory("blkio"), group.directory(UNIFIED)
    if blkio is not None:
        found["blkio"] = _blkio_v1(blkio)
    elif unified is not None and os.path.exists(f"{unified}/io.stat"):
        found["blkio"] = _blkio_v2(unified)
    return found | {"hugetlb": _hugetlb(group), "intel_rdt": {}, "network_interfaces": None}


def _text(directory: str, file: str) -> str:
    try:
        return files.read(directory, file).strip()
    except OSError:
        return ""


def _number(directory: str, file: str) -> int:
    text = _text(directory, file)
    return _NO_LIMIT if text == "max" else int(text or 0)


def _table(directory: str, file: str) -> dict[str, int]:
    pairs = (line.partition(" ") for line in _text(directory, file).splitlines())
    return {key: int(value) for key, _, value in pairs if value.isdigit()}


def _throttling(stat: dict[str, int], time_key: str, unit: int) -> dict[str, int]:
    parts = {"periods": stat.get("nr_periods", 0), "throttledPeriods": stat.get("nr_throttled", 0)}
    return parts | {"throttledTime": stat.get(time_key, 0) * unit}


def _cpu_v1(directory: str, group: Cgroup) -> dict[str, Any]:
    account = group.directory("cpuacct") or directory
    times = _table(account, "cpuacct.stat")
    spent = {
        "total": _number(account, "cpuacct.usage"),
        "percpu": [int(part) for part in _text(account, "cpuacct.usage_percpu").split()],
        **_by_processor(account),
        "kernel": times.get("system", 0) * _TICK,
        "user": times.get("user", 0) * _TICK,
    }
    return {"usage": spent, "throttling": _throttling(_table(directory, "cpu.stat"), "throttled_time", 1)}


def _by_processor(directory: str) -> dict[str, list[int]]:
    """Give the times of each processor from a table of three columns: its number, user and system."""
    rows = [line.split() for line in _text(directory, "cpuacct.usage_all").splitlines()[1:]]
    columns = (("percpu_kernel", 2), ("percpu_user", 1))
    return {name: [int(row[at]) for row in rows] for name, at in columns} if rows else {}


def _cpu_v2(directory: str, _group: Cgroup) -> dict[str, Any]:
    stat = _table(directory, "cpu.stat")
    names = (("total", "usage_usec"), ("kernel", "system_usec"), ("user", "user_usec"))
    spent = {name: stat.get(key, 0) * 1000 for name, key in names}
    return {"usage": spent, "throttling": _throttling(stat, "throttled_usec", 1000)} | _pressure(directory, "cpu")


def _pressure(directory: str, resource: str) -> dict[str, Any]:
    """Give how long tasks waited for a resource (Documentation/accounting/psi.rst); nothing where the kernel does not count."""
    found: dict[str, dict[str, float | int]] = {}
    for line in _text(directory, f"{resource}.pressure").splitlines():
        kind, *pairs = line.split()
        parts = (pair.partition("=") for pair in pairs)
        found[kind] = {key: int(value) if key == "total" else float(value) for key, _, value in parts}
    return {"psi": found} if found else {}


_CPUSET = (
    "cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab",
    "memory_pressure", "sched_load_balance", "sched_relax_domain_level",
)  # fmt: skip


def _cpuset(group: Cgroup) -> dict[str, Any]:
    directory = group.directory("cpuset")
    if directory is None:
        return {}
    lists = {name: _text(directory, f"cpuset.{name}") for name in ("cpus", "mems")}
    found: dict[str, Any] = {name: sorted(numbers(text)) for name, text in lists.items() if text}
    return found | {name: _number(directory, f"cpuset.{name}") for name in _CPUSET}


def _hugetlb(group: Cgroup) -> dict[str, dict[str, int]]:
    legacy, unified = group.directory("hugetlb"), group.directory(UNIFIED)
    found = {}
    for size in _page_sizes():
        name = f"hugetlb.{size}"
        if legacy is not None:
            now, most = _number(legacy, f"{name}.usage_in_bytes"), _number(legacy, f"{name}.max_usage_in_bytes")
            found[size] = {"usage": now, "max": most, "failcnt": _number(legacy, f"{name}.failcnt")}
        elif unified is not None and os.path.exists(f"{unified}/{name}.current"):
            events = _table(unified, f"{name}.events")
            found[size] = {"usage": _number(unified, f"{name}.current"), "failcnt": events.get("max", 0)}
    return found


def _page_sizes() -> list[str]:
    """Give the sizes of huge pages as the files of the controller spell them."""
    try:
        folders = sorted(os.listdir("/sys/kernel/mm/hugepages"))
    except OSError:
        return []
    kilobytes = [int(name.removeprefix("hugepages-").removesuffix("kB")) for name in folders]
    return [
        f"{size >> 20}GB" if size >= 1 << 20 else f"{size >> 10}MB" if size >= 1 << 10 else f"{size}KB" for size in kilobytes
    ]


def _counter(directory: str, prefix: str) -> dict[str, int]:
    return {
        "limit": _number(directory, f"{prefix}.limit_in_bytes"),
        "usage": _number(directory, f"{prefix}.usage_in_bytes"),
        "max": _number(directory, f"{prefix}.max_usage_in_bytes"),
        "failcnt": _number(directory, f"{prefix}.failcnt"),
    }


def _memory_v1(directory: str, _group: Cgroup) -> dict[str, Any]:
    raw = _table(directory, "memory.stat")
    kinds = (("usage", "memory"), ("swap", "memory.memsw"), ("kernel", "memory.kmem"), ("kernelTCP", "memory.kmem.tcp"))
    return {"cache": raw.get("cache", 0), "raw": raw} | {name: _counter(directory, prefix) for name, prefix in kinds}


def _memory_v2(directory: str, _group: Cgroup) -> dict[str, Any]:
    raw = _table(directory, "memory.stat")
    events = _table(directory, "memory.events")

    def counter(prefix: str, failures: int) -> dict[str, int]:
        now, most = _number(directory, f"{prefix}.current"), _number(directory, f"{prefix}.peak")
        return {"limit": _number(directory, f"{prefix}.max"), "usage": now, "max": most, "failcnt": failures}

    memory, swap = counter("memory", events.get("max", 0)), counter("memory.swap", 0)
    both = {key: min(memory[key] + swap[key], _NO_LIMIT) for key in memory}  # v1 counts memory and swap together
    return {"cache": raw.get("file", 0), "usage": memory, "swap": both, "raw": raw} | _pressure(directory, "memory")


def _pids(directory: str, _group: Cgroup) -> dict[str, int]:
    limit = _number(directory, "pids.max")
    return {"current": _number(directory, "pids.current"), "limit": 0 if limit == _NO_LIMIT else limit}


def _entry(device: str, operation: str, value: str) -> dict[str, Any]:
    major, _, minor = device.partition(":")
    return {"major": int(major), "minor": int(minor), "op": operation, "value": int(value)}


def _blkio_v1(directory: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, file in (("ioServiceBytesRecursive", "io_service_bytes"), ("ioServicedRecursive", "io_serviced")):
        rows = (line.split() for line in _text(directory, f"blkio.throttle.{file}_recursive").splitlines())
        found[name] = [_entry(*row) for row in rows if len(row) == 3]
    return found


_IO_KEYS = {
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
}


def _blkio_v2(directory: str) -> dict[str, Any]:
    found: dict[str, Any] = {"ioServiceBytesRecursive": [], "ioServicedRecursive": []}
    for line in _text(directory, "io.stat").splitlines():
        device, *pairs = line.split()
        for pair in pairs:
            key, _, value = pair.partition("=")
            if key in _IO_KEYS:
                name, operation = _IO_KEYS[key]
                found[name].append(_entry(device, operation, value))
    return found | _pressure(directory, "io")
