"""Memory of a daemon and its helpers: the sum of their proportional set sizes (proc_pid_smaps_rollup in proc(5))."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


def pss(pids: Iterable[int], *, without: Collection[int] = ()) -> float:
    """Give the megabytes (10^6 bytes) of all these processes, those in `without` and those that have gone left out."""
    return sum(_pss(pid) for pid in pids if pid not in without) * 1024 / 1e6


def _pss(pid: int) -> int:
    """Give the kibibytes of one process."""
    with suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
        for line in rollup:
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
