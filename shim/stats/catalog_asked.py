"""Metrics that cost more to read and are given when the configuration asks for their kind, under cAdvisor's names for both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shim.stats.catalog import SECOND, Metric

if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.stats.catalog import Values
    from shim.stats.metrics import Reading
    from shim.stats.values import Load, Schedule


def _tcp(family: str) -> Metric:
    def values(reading: Reading) -> Values:
        counts = reading.sockets.tcp.get(family, {}) if reading.sockets else {}
        return [((state,), count) for state, count in counts.items()]

    return Metric(f"container_network_{family}_usage_total", f"Sockets of {family} by state", "gauge", ("tcp_state",), values)


def _udp(family: str) -> Metric:
    def values(reading: Reading) -> Values:
        found = reading.sockets.udp.get(family) if reading.sockets else None
        return [((name,), getattr(found, name)) for name in ("listen", "dropped", "rxqueued", "txqueued")] if found else ()

    return Metric(
        f"container_network_{family}_usage_total",
        f"Sockets of {family}, datagrams dropped, bytes queued",
        "gauge",
        ("udp_state",),
        values,
    )


def _advanced(reading: Reading) -> Values:
    """Give all that this kernel counts, which may be more than cAdvisor knows by name."""
    counts = reading.sockets.advanced if reading.sockets else {}
    return [((name,), count) for name, count in counts.items()]


def _schedule(name: str, text: str, get: Callable[[Schedule], int]) -> Metric:
    def values(reading: Reading) -> Values:
        return () if reading.schedule is None else (((), get(reading.schedule)),)

    return Metric(f"container_cpu_schedstat_{name}_total", text, "counter", (), values)


def _load(name: str, text: str, get: Callable[[Load], int]) -> Metric:
    def values(reading: Reading) -> Values:
        return () if reading.load is None else (((), get(reading.load)),)

    return Metric(f"container_cpu_{name}_average_10s", text, "gauge", (), values)


def _states(reading: Reading) -> Values:
    tasks = reading.tasks
    names = ("sleeping", "running", "stopped", "uninterruptible")
    return () if tasks is None else [((name,), getattr(tasks, name)) for name in names]


def _numa(reading: Reading) -> Values:
    return [((one.kind, one.scope, one.node), one.pages) for one in (reading.details.numa if reading.details else ())]


def _referenced(reading: Reading) -> Values:
    return () if reading.referenced is None else (((), reading.referenced),)


KINDS: dict[str, tuple[Metric, ...]] = {
    "advtcp": (
        Metric("container_network_advance_tcp_stats_total", "The kernel's counters of TCP", "gauge", ("tcp_state",), _advanced),
    ),
    "cpuLoad": (
        _load("load", "Threads running or blocked, on average of ten seconds, in thousandths", lambda load: load.average),
        _load("load_d", "Threads blocked, on average of ten seconds, in thousandths", lambda load: load.blocked),
        Metric("container_tasks_state", "Threads by state", "gauge", ("state",), _states),
    ),
    "memory_numa": (
        Metric("container_memory_numa_pages", "Pages in use on a memory node", "gauge", ("type", "scope", "node"), _numa),
    ),
    "referenced_memory": (
        Metric("container_referenced_bytes", "Memory touched since the processes began, in bytes", "gauge", (), _referenced),
    ),
    "sched": (
        _schedule("run_seconds", "Time on a processor", lambda found: found.run // SECOND),
        _schedule("runqueue_seconds", "Time spent waiting for a processor", lambda found: found.waited // SECOND),
        _schedule("run_periods", "Times that a processor was got", lambda found: found.periods),
    ),
    "tcp": (_tcp("tcp"), _tcp("tcp6")),
    "udp": (_udp("udp6"), _udp("udp")),
}
"""By what `metrics.also` calls them."""
