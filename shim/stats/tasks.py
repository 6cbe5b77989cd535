"""What /proc tells of the threads of a cgroup. It costs ten microseconds a thread and file, so configuration asks for it."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from shim.stats.cgroup import read
from shim.stats.processes import MOST
from shim.stats.values import Load, Schedule, Tasks

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

STATES = {b"R": "running", b"S": "sleeping", b"I": "sleeping", b"T": "stopped", b"t": "stopped", b"D": "uninterruptible"}
"""proc_pid_stat(5); who waits for a device is uninterruptible too, and only taskstats can tell one from the other."""
LOAD_SECONDS = 10.0
SECOND = 1_000_000_000


def threads(pids: Iterable[int]) -> list[int]:
    """Give the thread ids of processes; those that end meanwhile have none."""
    found: list[int] = []
    for pid in pids:
        try:
            found += [int(name) for name in os.listdir(f"/proc/{pid}/task")]
        except OSError:
            continue
        if len(found) > MOST:
            break
    return found[:MOST]


def states(tids: Iterable[int]) -> Tasks:
    """Count threads by state."""
    counts = dict.fromkeys(STATES.values(), 0)
    for tid in tids:
        text = read(f"/proc/{tid}/stat") or b""
        state = STATES.get(text[text.rfind(b")") + 2 :][:1])
        if state is not None:
            counts[state] += 1
    return Tasks(**counts)


def schedules(tids: Iterable[int]) -> dict[int, Schedule]:
    """Give what the scheduler counts of each thread (the kernel's sched-stats document)."""
    found = {}
    for tid in tids:
        words = (read(f"/proc/{tid}/schedstat") or b"").split()
        if len(words) == 3:
            found[tid] = Schedule(run=int(words[0]), waited=int(words[1]), periods=int(words[2]))
    return found


def referenced(pids: Iterable[int]) -> int:
    """Give the bytes that processes have touched since they began (proc_pid_smaps(5)); nothing is ever reset."""
    total = 0
    for pid in pids:
        for line in (read(f"/proc/{pid}/smaps_rollup") or b"").splitlines():
            if line.startswith(b"Referenced:"):
                total += int(line.split()[1]) * 1024
    return total


class History:
    """What has to be remembered of cgroups, by the id of container or pod: threads that are gone have run, too."""

    def __init__(self) -> None:
        self._threads: dict[str, dict[int, Schedule]] = {}
        self._past: dict[str, Schedule] = {}
        self._loads: dict[str, tuple[int, float, float]] = {}

    def schedule(self, item_id: str, now: Mapping[int, Schedule]) -> Schedule:
        """Give the sum of all threads seen until now."""
        past = self._past.get(item_id, Schedule())
        for tid, last in self._threads.get(item_id, {}).items():
            if tid not in now or now[tid].run < last.run:  # it has ended; perhaps another has its number
                past = past.plus(last)
        self._past[item_id] = past
        self._threads[item_id] = dict(now)
        for one in now.values():
            past = past.plus(one)
        return past

    def load(self, item_id: str, at: int, tasks: Tasks) -> Load:
        """Give averages over the last ten seconds, in thousandths, as of a sample at `at` (nanoseconds)."""
        active, blocked = float(tasks.running + tasks.uninterruptible), float(tasks.uninterruptible)
        before = self._loads.get(item_id)
        if before is not None:
            weight = math.exp(-max(at - before[0], 0) / SECOND / LOAD_SECONDS)
            active = before[1] * weight + active * (1 - weight)
            blocked = before[2] * weight + blocked * (1 - weight)
        self._loads[item_id] = at, active, blocked
        return Load(average=int(active * 1000), blocked=int(blocked * 1000))

    def keep(self, known: Container[str]) -> None:
        """Forget all but the known ids."""
        for memory in (self._threads, self._past, self._loads):
            for item_id in [one for one in memory if one not in known]:
                del memory[item_id]
