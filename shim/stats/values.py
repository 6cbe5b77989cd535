"""What is measured, as values. Bytes, nanoseconds and counts; None is what this kernel does not tell."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """One line of a pressure file (PSI): stalled microseconds since the start, and percent of the last 10, 60, 300 seconds."""

    total: int
    avg10: float
    avg60: float
    avg300: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """A pressure file: `some` task waited; `full`: all did at once."""

    some: Stall
    full: Stall


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """Processor time since the cgroup was made."""

    usage: int
    user: int = 0
    system: int = 0
    periods: int = 0
    throttled_periods: int = 0
    throttled: int = 0
    bursts: int = 0
    burst: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory of the cgroup and those below it."""

    usage: int
    rss: int
    cache: int
    inactive_file: int
    active_file: int
    mapped_file: int
    page_faults: int
    major_page_faults: int
    swap: int
    kernel: int = 0
    limit: int | None = None
    """None: no limit of its own."""
    swap_limit: int | None = None
    """Bytes of swap alone; None: no limit."""

    @property
    def working_set(self) -> int:
        """Usage without the file pages nobody looked at lately: what cAdvisor and kubelet's eviction count."""
        return max(self.usage - self.inactive_file, 0)

    @property
    def available(self) -> int | None:
        """What may be used until the limit is hit; None without one."""
        return None if self.limit is None else max(self.limit - self.working_set, 0)

    @property
    def swap_available(self) -> int | None:
        """What may be swapped out until the limit is hit; None without one."""
        return None if self.swap_limit is None else max(self.swap_limit - self.swap, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEvents:
    """What memory limits have done to a cgroup."""

    limit_hits: int = 0
    oom_kills: int = 0
    peak: int = 0
    reservation: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceIo:
    """Transfers of one block device: operation (read, write, discard …, lower case) to bytes and to requests."""

    major: int
    minor: int
    bytes: dict[str, int]
    requests: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class HugePages:
    """Huge pages of one size ("2MB")."""

    size: str
    usage: int
    peak: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the stats RPCs tell of a cgroup; `at` in nanoseconds since 1970."""

    at: int
    cpu: Cpu | None = None
    memory: Memory | None = None
    cpu_pressure: Pressure | None = None
    memory_pressure: Pressure | None = None
    io_pressure: Pressure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What only the metrics tell."""

    events: MemoryEvents | None = None
    tasks: int | None = None
    tasks_limit: int = 0
    """0: as many as there can be."""
    io: tuple[DeviceIo, ...] = ()
    huge_pages: tuple[HugePages, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """Counters of one network interface, as the pod sees it."""

    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """What /proc tells of a container's processes."""

    processes: int = 0
    descriptors: int = 0
    sockets: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerUsage:
    """What a writable layer takes on the disk."""

    at: int
    used_bytes: int
    inodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSystem:
    """The file system with the writable layers."""

    device: str
    size: int
    inodes: int
    inodes_free: int
