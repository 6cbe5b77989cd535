"""What /proc tells of the processes of a cgroup; it costs tens of microseconds a process, so only metrics ask for it."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from typing import TYPE_CHECKING

from shim.stats.cgroup import read
from shim.stats.values import Processes

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST = 4096
"""Processes and descriptors looked at, so that a fork bomb in a container is not one in here."""


def members(directory: str) -> list[int]:
    """Give the pids of a cgroup and of those below it, as listed in one hierarchy."""
    found: list[int] = []
    for folder, _folders, _files in os.walk(directory):
        found += [int(word) for word in (read(f"{folder}/cgroup.procs") or b"").split()]
    return found


def look(pids: list[int]) -> Processes:
    """Count open descriptors and sockets of processes; those that end meanwhile count nothing."""
    descriptors = sockets = 0
    for pid in pids[:MOST]:
        folder = f"/proc/{pid}/fd"
        with suppress(OSError):
            names = os.listdir(folder)
            descriptors += len(names)
            sockets += sum(_is_socket(f"{folder}/{name}") for name in names[:MOST])
    return Processes(processes=len(pids), descriptors=descriptors, sockets=sockets)


def _is_socket(path: str) -> bool:
    try:
        return os.readlink(path).startswith("socket:")
    except OSError:
        return False


def total(parts: Iterable[Processes]) -> Processes:
    """Add up what was found for the containers of a pod."""
    found = list(parts)
    return Processes(
        processes=sum(one.processes for one in found),
        descriptors=sum(one.descriptors for one in found),
        sockets=sum(one.sockets for one in found),
    )


def open_files_limit(pid: int) -> int | None:
    """Give the soft limit of open files of a process, -1 for none; None when it is gone (prlimit(2))."""
    try:
        soft, _hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    except (OSError, ValueError):
        return None
    return -1 if soft == resource.RLIM_INFINITY else soft
