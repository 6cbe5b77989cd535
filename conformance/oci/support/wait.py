"""Wait for a condition, never for a time; and collect the processes that runtimes leave to us."""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = float(os.environ.get("OCI_PATIENCE", "1"))
"""How many times longer to wait, on a machine that is slow."""
SECONDS = 10.0 * PATIENCE
PR_SET_CHILD_SUBREAPER = 36
exits: dict[int, int] = {}
"""Wait statuses of the orphans that ended, by process id."""
ours: set[int] = set()
"""Children that somebody here waits for by himself."""


def adopt_orphans() -> None:
    """Become the parent of every process that a runtime leaves behind: each can be waited for, and none can hide."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> set[int]:
    """Give the process ids of all our children."""
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        with suppress(OSError), open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
            found.update(int(word) for word in file.read().split())
    return found


def collect() -> set[int]:
    """Reap every orphan that has ended; give those that live."""
    alive = set()
    for pid in children() - ours:
        with suppress(ChildProcessError):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                exits[pid] = status
            else:
                alive.add(pid)
    return alive


def wait_for(condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Ask until `condition` is true; AssertionError names what did not happen."""
    pause, end = 0.002, time.monotonic() + seconds
    while True:
        collect()
        if condition():
            return
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def exit_code(pid: int) -> int:
    """Wait for a container's process and give its exit code, 128 + n for a signal."""
    wait_for(lambda: pid in exits or not os.path.exists(f"/proc/{pid}"), f"process {pid} to end")
    code = os.waitstatus_to_exitcode(exits[pid])
    return code if code >= 0 else 128 - code
