"""Find and kill a process with all its descendants where no cgroup of their own holds them."""

from __future__ import annotations

import contextlib
import os
import signal

_ROUNDS = 64


def kill_tree(root: int) -> set[int]:
    """Kill `root`, its session and its descendants, again until a look at /proc finds no more of them; give them.

    Everything is stopped before it is killed, so that a parent's death does not set a child free before it was seen. A
    process that left the session *and* lost its parent beforehand is not found: that takes a cgroup.
    """
    seen: set[int] = {root}
    for _ in range(_ROUNDS):
        table = _processes()
        found = _descendants(table, seen)
        fresh = [pid for pid in found if pid not in seen or pid == root]
        for pid in fresh:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGSTOP)
        if found <= seen:
            break
        seen |= found
    for pid in seen:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return seen


def family(root: int) -> set[int]:
    """Give `root`, its session and its descendants, as far as they are there."""
    return _descendants(_processes(), {root})


def kill_members(group: int) -> set[int]:
    """Kill what is left of a process group whose leader has ended, and give it."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return set()
    return {pid for pid, (_parent, member_of, _session) in _processes().items() if member_of == group}


def _processes() -> dict[int, tuple[int, int, int]]:
    """Give pid → (parent, process group, session) of every process (proc(5))."""
    table: dict[int, tuple[int, int, int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{name}/stat", "rb") as file:
                # The command stands in parentheses and may contain anything, also parentheses.
                fields = file.read().rpartition(b")")[2].split()
                table[int(name)] = (int(fields[1]), int(fields[2]), int(fields[3]))
    return table


def _descendants(table: dict[int, tuple[int, int, int]], roots: set[int]) -> set[int]:
    """Give the transitive children of `roots` and whoever shares a session led by one of them."""
    found = {pid for pid in roots if pid in table}
    grew = True
    while grew:
        more = {
            pid for pid, (parent, _, session) in table.items() if pid not in found and (parent in found or session in found)
        }
        found |= more
        grew = bool(more)
    return found
