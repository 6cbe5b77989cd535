"""What liveness costs: many pods with an exec probe a second each, in processor time of all that serves them."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from conformance.bench.target import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from conformance.bench.measure import Results
    from conformance.bench.target import Pod, Target

PERIOD = 1.0
"""Seconds between two probes of a pod; kubelet's default is ten."""
_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


def probes(results: Results, targets: list[Target], pods: int, rounds: int) -> None:
    """Probe every pod once a period; the figure is milliseconds of processor a probe, of the daemon and all its helpers."""
    for target in targets:
        try:
            running = target.start_pods(pods)
            _round(target, running)  # the first exec in a pod is dearer
            results.add("probe", target.name, [_cost(target, running) for _ in range(rounds)])
            target.remove_pods(running)
        except Exception as error:  # noqa: BLE001 - one side that fails must not hide the others
            results.failed("probe", target.name, error)


def _cost(target: Target, running: list[Pod]) -> float:
    before = _used(target.endpoint.helpers())
    started = time.monotonic()
    _round(target, running)
    time.sleep(max(0.0, started + PERIOD - time.monotonic()))
    return (_used(target.endpoint.helpers()) - before) * _TICK_MS / len(running)


def _round(target: Target, running: list[Pod]) -> None:
    def probe(pod: Pod) -> None:
        if target.cri.execute(pod.container, "true").exit_code != 0:
            raise RuntimeError("a probe failed")

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(probe, running))


def _used(pids: Iterable[int]) -> int:
    """Give the clock ticks these processes have used, with those of the children they have waited for (proc_pid_stat(5))."""
    total = 0
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as table:
            fields = table.read().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
    return total
