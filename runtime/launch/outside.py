"""What the creator does to a process from outside, where it has the privilege: limits, and its id in a file."""

from __future__ import annotations

import os

from runtime.apply.faults import Step
from runtime.kernel.limits import prlimit


def set_limits(pid: int, limits: tuple[tuple[int, int, int], ...]) -> None:
    """Set the resource limits of a process of ours from outside, where the privilege to raise them is."""
    for number, soft, hard in limits:
        with Step(f"set resource limit {number} to {soft}:{hard}"):
            prlimit(pid, number, soft, hard)


def write_pid_file(path: str, pid: int) -> None:
    """Write a process id to a file, whole or not at all."""
    scratch = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}")
    with Step("write the pid file", path):
        fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            os.write(fd, str(pid).encode())
        finally:
            os.close(fd)
        os.rename(scratch, path)
