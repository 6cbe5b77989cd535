"""Contents of cgroup and /proc files to values; pure (cgroups(7), the kernel's cgroup-v1 and cgroup-v2 documents, psi)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shim.stats.values import Cpu, DeviceIo, Interface, Memory, NumaPages, Pressure, Stall

if TYPE_CHECKING:
    from collections.abc import Mapping

MICROSECOND = 1000
UNLIMITED = 1 << 62
"""v1 writes "no limit" as the greatest multiple of the page size; nothing a machine has comes near this."""
COSTS = ("usage", "wait", "indebt", "indelay")
NUMA_KINDS = (b"file", b"anon", b"unevictable")
V2_OPERATIONS = {b"r": "read", b"w": "write", b"d": "discard"}


def number(text: bytes) -> int | None:
    """Read a file with one number; None for "max" and for v1's way to write it."""
    word = text.strip()
    if word == b"max":
        return None
    value = int(word)
    return None if value >= UNLIMITED else value


def keyed(text: bytes) -> dict[bytes, int]:
    """Read lines of "key number"."""
    words = text.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


def pressure(text: bytes) -> Pressure | None:
    """Read a pressure file; None for one without content. Before Linux 5.13 cpu.pressure has no "full" line."""
    stalls = {}
    for line in text.splitlines():
        name, avg10, avg60, avg300, total = line.split()
        stalls[name] = Stall(total=int(total[6:]), avg10=float(avg10[6:]), avg60=float(avg60[6:]), avg300=float(avg300[7:]))
    if b"some" not in stalls:
        return None
    return Pressure(some=stalls[b"some"], full=stalls.get(b"full", NO_STALL))


NO_STALL = Stall(total=0, avg10=0.0, avg60=0.0, avg300=0.0)


def cpu_v1(usage: bytes, split: Mapping[bytes, int], bandwidth: Mapping[bytes, int], tick: int) -> Cpu:
    """Join cpuacct.usage, cpuacct.stat (in ticks of `tick` nanoseconds) and cpu.stat."""
    return Cpu(
        usage=int(usage),
        user=split.get(b"user", 0) * tick,
        system=split.get(b"system", 0) * tick,
        periods=bandwidth.get(b"nr_periods", 0),
        throttled_periods=bandwidth.get(b"nr_throttled", 0),
        throttled=bandwidth.get(b"throttled_time", 0),
        bursts=bandwidth.get(b"nr_bursts", 0),
        burst=bandwidth.get(b"burst_time", 0),
    )


def cpu_v2(stat: Mapping[bytes, int]) -> Cpu:
    """Read cpu.stat of v2."""
    return Cpu(
        usage=stat[b"usage_usec"] * MICROSECOND,
        user=stat.get(b"user_usec", 0) * MICROSECOND,
        system=stat.get(b"system_usec", 0) * MICROSECOND,
        periods=stat.get(b"nr_periods", 0),
        throttled_periods=stat.get(b"nr_throttled", 0),
        throttled=stat.get(b"throttled_usec", 0) * MICROSECOND,
        bursts=stat.get(b"nr_bursts", 0),
        burst=stat.get(b"burst_usec", 0) * MICROSECOND,
    )


def memory_v1(usage: int, stat: Mapping[bytes, int], limit: int | None, kernel: int = 0) -> Memory:
    """Join memory.usage_in_bytes, memory.stat and memory.limit_in_bytes.

    memory.stat also tells the limit of memory and swap together (memsw) that is in force.
    """
    both = stat.get(b"hierarchical_memsw_limit", UNLIMITED)
    swap_limit = None if both >= UNLIMITED or limit is None else max(both - limit, 0)
    return Memory(
        usage=usage,
        rss=stat.get(b"total_rss", 0),
        cache=stat.get(b"total_cache", 0),
        inactive_file=stat.get(b"total_inactive_file", 0),
        active_file=stat.get(b"total_active_file", 0),
        mapped_file=stat.get(b"total_mapped_file", 0),
        page_faults=stat.get(b"total_pgfault", 0),
        major_page_faults=stat.get(b"total_pgmajfault", 0),
        swap=stat.get(b"total_swap", 0),
        kernel=kernel,
        limit=limit,
        swap_limit=swap_limit,
        stat=stat,
    )


def memory_v2(usage: int, stat: Mapping[bytes, int], limit: int | None, swap: int, swap_limit: int | None) -> Memory:
    """Join memory.current, memory.stat, memory.max, memory.swap.current and memory.swap.max."""
    kernel = stat.get(b"kernel")
    if kernel is None:  # before Linux 5.18 only the parts are told
        kernel = sum(stat.get(key, 0) for key in (b"kernel_stack", b"pagetables", b"percpu", b"slab", b"sec_pagetables"))
    return Memory(
        usage=usage,
        rss=stat.get(b"anon", 0),
        cache=stat.get(b"file", 0),
        inactive_file=stat.get(b"inactive_file", 0),
        active_file=stat.get(b"active_file", 0),
        mapped_file=stat.get(b"file_mapped", 0),
        page_faults=stat.get(b"pgfault", 0),
        major_page_faults=stat.get(b"pgmajfault", 0),
        swap=swap,
        kernel=kernel,
        limit=limit,
        swap_limit=swap_limit,
        stat=stat,
    )


def io_v1(service_bytes: bytes, serviced: bytes, scheduler: Mapping[str, bytes]) -> tuple[DeviceIo, ...]:
    """Join blkio.throttle.io_service_bytes_recursive and io_serviced_recursive, and files of BFQ by a name of ours."""
    moved, asked = _operations(service_bytes), _operations(serviced)
    more = {key: _operations(text) for key, text in scheduler.items()}
    devices = []
    for name in moved | asked:
        found = {key: counts[name] for key, counts in more.items() if name in counts}
        devices.append(_device(name, moved.get(name, {}), asked.get(name, {}), scheduler=found))
    return tuple(devices)


def _operations(text: bytes) -> dict[bytes, dict[str, int]]:
    """Read lines of "major:minor Operation number"."""
    devices: dict[bytes, dict[str, int]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3:  # the last line is the total of all devices
            devices.setdefault(words[0], {})[words[1].decode().lower()] = int(words[2])
    return devices


def io_v2(stat: bytes) -> tuple[DeviceIo, ...]:
    """Read io.stat: lines of "major:minor rbytes=… wbytes=… rios=… wios=… dbytes=… dios=…"."""
    devices = []
    for line in stat.splitlines():
        name, *pairs = line.split()
        values = dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)
        sums = {word: int(values.get(key + b"bytes", 0)) for key, word in V2_OPERATIONS.items()}
        counts = {word: int(values.get(key + b"ios", 0)) for key, word in V2_OPERATIONS.items()}
        if b":" in name and values:
            cost = {key: int(values[b"cost." + key.encode()]) for key in COSTS if b"cost." + key.encode() in values}
            devices.append(_device(name, sums, counts, cost=cost))
    return tuple(devices)


def _device(
    name: bytes,
    sums: dict[str, int],
    counts: dict[str, int],
    *,
    cost: dict[str, int] | None = None,
    scheduler: dict[str, dict[str, int]] | None = None,
) -> DeviceIo:
    major, _, minor = name.partition(b":")
    return DeviceIo(major=int(major), minor=int(minor), bytes=sums, requests=counts, cost=cost or {}, scheduler=scheduler or {})


def numa_v1(stat: bytes) -> tuple[NumaPages, ...]:
    """Read memory.numa_stat of v1: lines of "[hierarchical_]kind=pages N0=pages …"."""
    return _numa(stat, b"=", 1)


def numa_v2(stat: bytes, page: int) -> tuple[NumaPages, ...]:
    """Read memory.numa_stat of v2, lines of "kind N0=bytes …", which are of the whole hierarchy."""
    return _numa(stat, b" ", page)


def _numa(stat: bytes, end: bytes, unit: int) -> tuple[NumaPages, ...]:
    pages = []
    for line in stat.splitlines():
        key = line.partition(end)[0]
        kind = key.removeprefix(b"hierarchical_")
        scope = "container" if kind == key and unit == 1 else "hierarchy"
        for word in line.split()[1:] if kind in NUMA_KINDS else ():
            node, _, count = word.partition(b"=")
            pages.append(NumaPages(kind=kind.decode(), scope=scope, node=node[1:].decode(), pages=int(count) // unit))
    return tuple(pages)


def net_dev(text: bytes) -> tuple[Interface, ...]:
    """Read /proc/<pid>/net/dev (proc_pid_net(5)) without the loopback interface."""
    interfaces = []
    for line in text.splitlines()[2:]:
        name, _, rest = line.rpartition(b":")
        values = rest.split()
        label = name.strip().decode("utf-8", "replace")
        if label == "lo" or len(values) < 12:
            continue
        interfaces.append(
            Interface(
                name=label,
                rx_bytes=int(values[0]),
                rx_packets=int(values[1]),
                rx_errors=int(values[2]),
                rx_dropped=int(values[3]),
                tx_bytes=int(values[8]),
                tx_packets=int(values[9]),
                tx_errors=int(values[10]),
                tx_dropped=int(values[11]),
            )
        )
    return tuple(interfaces)
