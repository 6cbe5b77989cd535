"""What is measured, as values. Bytes, nanoseconds and counts; None is what this kernel does not tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


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
    stat: Mapping[bytes, int] = field(default_factory=dict, repr=False, compare=False)
    """All of memory.stat, for what only metrics tell."""

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
    high: int | None = None
    """How often memory.high was hit; None on v1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceIo:
    """Transfers of one block device: operation (read, write, discard …, lower case) to bytes and to requests."""

    major: int
    minor: int
    bytes: dict[str, int]
    requests: dict[str, int]
    cost: dict[str, int] = field(default_factory=dict)
    """Microseconds that the cost model (blk-iocost) counts: usage, wait, indebt, indelay; empty where it is off."""
    scheduler: dict[str, dict[str, int]] = field(default_factory=dict)
    """What v1's BFQ scheduler counts by operation: merged, time (nanoseconds), queued; empty without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HugePages:
    """Huge pages of one size ("2MB")."""

    size: str
    usage: int
    peak: int
    failures: int = 0
    """How often the limit was hit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumaPages:
    """Pages on one node: `kind` is file, anon or unevictable, `scope` container or hierarchy (with the cgroups below)."""

    kind: str
    scope: str
    node: str
    pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """Threads by state."""

    running: int = 0
    sleeping: int = 0
    stopped: int = 0
    uninterruptible: int = 0

    def plus(self, other: Tasks) -> Tasks:
        """Add up two."""
        return Tasks(
            running=self.running + other.running,
            sleeping=self.sleeping + other.sleeping,
            stopped=self.stopped + other.stopped,
            uninterruptible=self.uninterruptible + other.uninterruptible,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Averages of the last ten seconds, in thousandths of a thread: those running or blocked, and those blocked alone."""

    average: int
    blocked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What the scheduler counts: nanoseconds on a processor, nanoseconds waiting for one, time slices."""

    run: int = 0
    waited: int = 0
    periods: int = 0

    def plus(self, other: Schedule) -> Schedule:
        """Add up two."""
        return Schedule(run=self.run + other.run, waited=self.waited + other.waited, periods=self.periods + other.periods)


@dataclass(frozen=True, slots=True, kw_only=True)
class Datagrams:
    """UDP sockets: those that wait for anybody, datagrams dropped, bytes queued."""

    listen: int = 0
    dropped: int = 0
    rxqueued: int = 0
    txqueued: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sockets:
    """Sockets of a network namespace: by "tcp" or "tcp6" and state, by "udp" or "udp6", and TCP's counters by name."""

    tcp: dict[str, dict[str, int]] = field(default_factory=dict)
    udp: dict[str, Datagrams] = field(default_factory=dict)
    advanced: dict[str, int] = field(default_factory=dict)


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
    migrates: int | None = None
    """1: pages follow a change of the memory nodes (v1's cpuset.memory_migrate)."""
    numa: tuple[NumaPages, ...] = ()


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
class Network:
    """What a network namespace has."""

    interfaces: tuple[Interface, ...] = ()
    sockets: Sockets | None = None


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
