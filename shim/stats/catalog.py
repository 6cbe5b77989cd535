"""The table of metrics: what cAdvisor gives of a container, under its names and labels; `catalog_asked` has the rest.

Left out: perf events, which take a counter of the processor for each container and processor; resctrl's (memory bandwidth and
cache), since no monitoring groups are made; container_health_state, because pods have probes and not Docker's health checks;
container_fs_io_time_weighted_seconds_total, which the kernel counts for whole disks alone; processor time by processor, which
v2 does not tell. Merged requests and times of a device are v1's, and of the BFQ scheduler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shim.gen.runtime.v1.api_pb2 import LinuxContainerResources
    from shim.stats.metrics import Reading
    from shim.stats.values import Cpu, Details, FileSystem, HugePages, Interface, Memory, MemoryEvents, Pressure, Processes

    Values = Iterable[tuple[tuple[str, ...], int]]

SECOND = 1_000_000_000
MICROSECONDS = 1_000_000
DEFAULT_PERIOD = 100_000
"""Microseconds; the kernel's cfs_period_us."""
DEFAULT_SHARES = 1024


class Metric(NamedTuple):
    """One metric; `values` gives its values with those of `labels`, nothing where it is not known."""

    name: str
    help: str
    kind: str
    labels: tuple[str, ...]
    values: Callable[[Reading], Values]


def _one(value: int | None) -> Values:
    return () if value is None else (((), value),)


def _cpu(name: str, text: str, get: Callable[[Cpu], int]) -> Metric:
    def values(reading: Reading) -> Values:
        cpu = reading.usage and reading.usage.cpu
        return _one(get(cpu)) if cpu else ()

    return Metric(f"container_cpu_{name}", text, "counter", (), values)


def _memory(name: str, text: str, get: Callable[[Memory], int]) -> Metric:
    def values(reading: Reading) -> Values:
        memory = reading.usage and reading.usage.memory
        return _one(get(memory)) if memory else ()

    return Metric(f"container_memory_{name}", text, "gauge", (), values)


def _memory_stat(name: str, text: str, kind: str, *keys: bytes) -> Metric:
    """Give what memory.stat tells under one of `keys`: v2's and v1's names, where both have it."""

    def values(reading: Reading) -> Values:
        memory = reading.usage and reading.usage.memory
        return _one(next((memory.stat[key] for key in keys if key in memory.stat), None)) if memory else ()

    return Metric(f"container_memory_{name}", text, kind, (), values)


def _event(name: str, text: str, kind: str, get: Callable[[MemoryEvents], int | None]) -> Metric:
    def values(reading: Reading) -> Values:
        events = reading.details and reading.details.events
        return _one(get(events)) if events else ()

    return Metric(f"container_{name}", text, kind, (), values)


def _detail(name: str, text: str, get: Callable[[Details], int | None]) -> Metric:
    return Metric(f"container_{name}", text, "gauge", (), lambda reading: _one(get(reading.details)) if reading.details else ())


def _process(name: str, text: str, get: Callable[[Processes], int]) -> Metric:
    def values(reading: Reading) -> Values:
        return _one(get(reading.processes)) if reading.processes else ()

    return Metric(f"container_{name}", text, "gauge", (), values)


def _file_system(name: str, text: str, get: Callable[[FileSystem, Reading], int | None]) -> Metric:
    def values(reading: Reading) -> Values:
        system = reading.file_system
        value = None if system is None else get(system, reading)
        return () if system is None or value is None else (((system.device,), value),)

    return Metric(f"container_fs_{name}", text, "gauge", ("device",), values)


def _transfer(name: str, text: str, operation: str, *, requests: bool) -> Metric:
    def values(reading: Reading) -> Values:
        for io in reading.details.io if reading.details else ():
            counts = io.requests if requests else io.bytes
            if operation in counts:
                yield (_device(reading, io.major, io.minor),), counts[operation]

    return Metric(f"container_fs_{name}_total", text, "counter", ("device",), values)


SECTOR = 512
"""Bytes; what the kernel calls so, whatever the disk has."""


def _sectors(name: str, text: str, operation: str) -> Metric:
    def values(reading: Reading) -> Values:
        for io in reading.details.io if reading.details else ():
            if operation in io.bytes:
                yield (_device(reading, io.major, io.minor),), io.bytes[operation] // SECTOR

    return Metric(f"container_fs_sector_{name}_total", text, "counter", ("device",), values)


def _cost(name: str, text: str) -> Metric:
    def values(reading: Reading) -> Values:
        for io in reading.details.io if reading.details else ():
            if name in io.cost:
                yield (_device(reading, io.major, io.minor),), io.cost[name] // MICROSECONDS

    return Metric(f"container_fs_io_cost_{name}_seconds_total", text, "counter", ("device",), values)


def _scheduled(name: str, text: str, key: str, operation: str, unit: int) -> Metric:
    def values(reading: Reading) -> Values:
        for io in reading.details.io if reading.details else ():
            if operation in io.scheduler.get(key, {}):
                yield (_device(reading, io.major, io.minor),), io.scheduler[key][operation] // unit

    return Metric(f"container_fs_{name}", text, "counter" if name.endswith("_total") else "gauge", ("device",), values)


def _device(reading: Reading, major: int, minor: int) -> str:
    return reading.devices.get((major, minor), f"{major}:{minor}")


def _blkio(reading: Reading) -> Values:
    for io in reading.details.io if reading.details else ():
        device = _device(reading, io.major, io.minor)
        for operation, count in io.bytes.items():
            yield (device, str(io.major), str(io.minor), operation), count


def _huge_pages(name: str, text: str, kind: str, get: Callable[[HugePages], int]) -> Metric:
    def values(reading: Reading) -> Values:
        return [((pages.size,), get(pages)) for pages in (reading.details.huge_pages if reading.details else ())]

    return Metric(f"container_hugetlb_{name}", text, kind, ("pagesize",), values)


def _failures(reading: Reading) -> Values:
    memory = reading.usage.memory if reading.usage else None
    if memory is None:
        return
    for scope in ("container", "hierarchy"):
        yield ("pgfault", scope), memory.page_faults
        yield ("pgmajfault", scope), memory.major_page_faults


def _pressure(resource: str, name: str, text: str) -> Metric:
    def values(reading: Reading) -> Values:
        pressure: Pressure | None = getattr(reading.usage, f"{resource}_pressure", None)
        if pressure is None:
            return ()
        return _one((pressure.full if name == "stalled" else pressure.some).total // MICROSECONDS)

    return Metric(f"container_pressure_{resource}_{name}_seconds_total", text, "counter", (), values)


def _network(name: str, text: str, get: Callable[[Interface], int]) -> Metric:
    def values(reading: Reading) -> Values:
        return [((one.name,), get(one)) for one in reading.interfaces]

    return Metric(f"container_network_{name}_total", text, "counter", ("interface",), values)


def _spec(name: str, text: str, get: Callable[[LinuxContainerResources], int | None]) -> Metric:
    def values(reading: Reading) -> Values:
        return () if reading.limits is None else _one(get(reading.limits))

    return Metric(f"container_spec_{name}", text, "gauge", (), values)


def _memory_spec(name: str, text: str, get: Callable[[Memory, MemoryEvents], int | None]) -> Metric:
    """Give the limits the kernel enforces, 0 for none."""

    def values(reading: Reading) -> Values:
        memory = reading.usage.memory if reading.usage else None
        events = reading.details.events if reading.details else None
        if reading.limits is None or memory is None or events is None:
            return ()
        return _one(get(memory, events) or 0)

    return Metric(f"container_spec_memory_{name}", text, "gauge", (), values)


def _open_files(reading: Reading) -> Values:
    return () if reading.open_files is None else ((("max_open_files",), max(reading.open_files, 0)),)


METRICS = (
    Metric("container_last_seen", "When this container was last looked at", "gauge", (), lambda r: _one(r.at // SECOND)),
    Metric(
        "container_start_time_seconds",
        "When the container was started, in seconds since 1970",
        "gauge",
        (),
        lambda r: _one(r.started_at // SECOND or None),
    ),
    Metric(
        "container_creation_time_seconds",
        "When the container was created, in seconds since 1970",
        "gauge",
        (),
        lambda r: _one(r.created_at // SECOND or None),
    ),
    Metric(
        "container_cpu_usage_seconds_total",
        "Processor time used, in seconds",
        "counter",
        ("cpu",),
        lambda r: ((("total",), r.usage.cpu.usage // SECOND),) if r.usage and r.usage.cpu else (),
    ),
    _cpu("user_seconds_total", "Processor time used in user mode, in seconds", lambda cpu: cpu.user // SECOND),
    _cpu("system_seconds_total", "Processor time used in the kernel, in seconds", lambda cpu: cpu.system // SECOND),
    _cpu("cfs_periods_total", "Periods of the quota that have passed", lambda cpu: cpu.periods),
    _cpu("cfs_throttled_periods_total", "Periods in which the quota was used up", lambda cpu: cpu.throttled_periods),
    _cpu("cfs_throttled_seconds_total", "Time spent waiting for a new quota", lambda cpu: cpu.throttled // SECOND),
    _cpu("cfs_burst_periods_total", "Periods in which saved quota was used", lambda cpu: cpu.bursts),
    _cpu("cfs_burst_seconds_total", "Time that ran on saved quota", lambda cpu: cpu.burst // SECOND),
    _memory("usage_bytes", "Memory in use, the page cache with it", lambda memory: memory.usage),
    _memory("working_set_bytes", "Memory in use without inactive file pages", lambda memory: memory.working_set),
    _memory("rss", "Anonymous memory in use, in bytes", lambda memory: memory.rss),
    _memory("cache", "Page cache in use, in bytes", lambda memory: memory.cache),
    _memory("swap", "Swap in use, in bytes", lambda memory: memory.swap),
    _memory("mapped_file", "Files mapped into memory, in bytes", lambda memory: memory.mapped_file),
    _memory("kernel_usage", "Kernel memory in use, in bytes", lambda memory: memory.kernel),
    _memory("total_active_file_bytes", "File pages used lately, in bytes", lambda memory: memory.active_file),
    _memory("total_inactive_file_bytes", "File pages not used lately, in bytes", lambda memory: memory.inactive_file),
    _event("memory_max_usage_bytes", "Most memory ever in use, in bytes", "gauge", lambda events: events.peak),
    _event("memory_failcnt", "How often the memory limit was hit", "counter", lambda events: events.limit_hits),
    _event("oom_events_total", "Processes killed for want of memory", "counter", lambda events: events.oom_kills),
    _event(
        "memory_events_high_total",
        "How often memory.high was hit",
        "counter",
        lambda events: events.high,
    ),
    _event(
        "memory_events_max_total",
        "How often memory.max was hit",
        "counter",
        lambda events: None if events.high is None else events.limit_hits,
    ),
    _memory_stat("file_dirty_bytes", "File pages not written to disk yet, in bytes", "gauge", b"file_dirty", b"total_dirty"),
    _memory_stat(
        "file_writeback_bytes", "File pages being written to disk, in bytes", "gauge", b"file_writeback", b"total_writeback"
    ),
    _memory_stat("pgscan_total", "Pages looked at for reclaim", "counter", b"pgscan"),
    _memory_stat("pgsteal_total", "Pages reclaimed", "counter", b"pgsteal"),
    _memory_stat(
        "workingset_refault_file_total",
        "File pages that were needed again after reclaim",
        "counter",
        b"workingset_refault_file",
        b"total_workingset_refault_file",
    ),
    _memory_stat(
        "workingset_refault_anon_total",
        "Anonymous pages that were needed again after reclaim",
        "counter",
        b"workingset_refault_anon",
        b"total_workingset_refault_anon",
    ),
    _detail("memory_migrate", "Whether pages follow a change of the memory nodes", lambda details: details.migrates),
    Metric("container_memory_failures_total", "Page faults", "counter", ("failure_type", "scope"), _failures),
    _file_system(
        "usage_bytes", "Disk space that the writable layer takes", lambda _, r: r.layer.used_bytes if r.layer else None
    ),
    _file_system("limit_bytes", "Size of the file system with the writable layer", lambda system, _: system.size),
    _file_system("inodes_free", "Free inodes of that file system", lambda system, _: system.inodes_free),
    _file_system("inodes_total", "Inodes of that file system", lambda system, _: system.inodes),
    _transfer("reads_bytes", "Bytes read from a device", "read", requests=False),
    _transfer("reads", "Reads from a device", "read", requests=True),
    _transfer("writes_bytes", "Bytes written to a device", "write", requests=False),
    _transfer("writes", "Writes to a device", "write", requests=True),
    Metric(
        "container_blkio_device_usage_total",
        "Bytes moved to and from a device, by operation",
        "counter",
        ("device", "major", "minor", "operation"),
        _blkio,
    ),
    _sectors("reads", "Sectors of 512 bytes read from a device", "read"),
    _sectors("writes", "Sectors of 512 bytes written to a device", "write"),
    _scheduled("reads_merged_total", "Reads that were joined with others", "merged", "read", 1),
    _scheduled("writes_merged_total", "Writes that were joined with others", "merged", "write", 1),
    _scheduled("read_seconds_total", "Time that reads took on a device", "time", "read", SECOND),
    _scheduled("write_seconds_total", "Time that writes took on a device", "time", "write", SECOND),
    _scheduled("io_time_seconds_total", "Time that all requests took on a device", "time", "total", SECOND),
    _scheduled("io_current", "Requests that are under way", "queued", "total", 1),
    _cost("usage", "Time of a device used up by the cost model's count"),
    _cost("wait", "Time spent waiting for a share of a device by the cost model"),
    _cost("indebt", "Time in debt to the cost model"),
    _cost("indelay", "Time delayed for a debt to the cost model"),
    _huge_pages("usage_bytes", "Huge pages in use, in bytes", "gauge", lambda pages: pages.usage),
    _huge_pages("max_usage_bytes", "Most huge pages ever in use, in bytes", "gauge", lambda pages: pages.peak),
    _huge_pages("failcnt", "How often the limit of huge pages was hit", "counter", lambda pages: pages.failures),
    _process("processes", "Processes in the container", lambda found: found.processes),
    _process("file_descriptors", "Descriptors that the container's processes have open", lambda found: found.descriptors),
    _process("sockets", "Sockets that the container's processes have open", lambda found: found.sockets),
    _detail("threads", "Threads in the container", lambda details: details.tasks),
    _detail("threads_max", "Threads the container may have, 0 for any number", lambda details: details.tasks_limit),
    Metric("container_ulimits_soft", "Soft resource limits of the first process", "gauge", ("ulimit",), _open_files),
    _spec("cpu_period", "Length of the quota's period, in microseconds", lambda limits: limits.cpu_period or DEFAULT_PERIOD),
    _spec("cpu_quota", "Processor time allowed in a period, in microseconds", lambda limits: max(limits.cpu_quota, 0) or None),
    _spec("cpu_shares", "Weight among those who want the processor", lambda limits: limits.cpu_shares or DEFAULT_SHARES),
    _memory_spec("limit_bytes", "Memory limit, 0 for none", lambda memory, _: memory.limit),
    _memory_spec(
        "reservation_limit_bytes", "Memory that is spared when it is short, 0 for none", lambda _, events: events.reservation
    ),
    _memory_spec("swap_limit_bytes", "Limit of swap, 0 for none", lambda memory, _: memory.swap_limit),
    _pressure("cpu", "stalled", "Time in which no task had a processor, for others had them"),
    _pressure("cpu", "waiting", "Time in which some task waited for a processor"),
    _pressure("memory", "stalled", "Time in which all tasks waited for memory"),
    _pressure("memory", "waiting", "Time in which some task waited for memory"),
    _pressure("io", "stalled", "Time in which all tasks waited for a device"),
    _pressure("io", "waiting", "Time in which some task waited for a device"),
    _network("receive_bytes", "Bytes received", lambda one: one.rx_bytes),
    _network("receive_packets", "Packets received", lambda one: one.rx_packets),
    _network("receive_packets_dropped", "Packets dropped on reception", lambda one: one.rx_dropped),
    _network("receive_errors", "Errors on reception", lambda one: one.rx_errors),
    _network("transmit_bytes", "Bytes sent", lambda one: one.tx_bytes),
    _network("transmit_packets", "Packets sent", lambda one: one.tx_packets),
    _network("transmit_packets_dropped", "Packets dropped on sending", lambda one: one.tx_dropped),
    _network("transmit_errors", "Errors on sending", lambda one: one.tx_errors),
)
