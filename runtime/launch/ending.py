"""End processes of a container and remove what it left: what `kill` and `delete` need without the rest of launch."""

from __future__ import annotations

import os

from runtime.errors import RuntimeFault
from runtime.kernel import pidfd

_END_TIMEOUT = 10.0
"""Seconds a killed process of ours may take to end before the fault says that it hangs in the kernel."""


def end_child(pid: int) -> None:
    """Kill and reap a child, if it is still there."""
    try:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def end_process(pid: int, start_time: int) -> None:
    """Kill a process and wait for its end, reaping it when it is ours; raise RuntimeFault when it does not end."""
    fd = pidfd.open_process(pid, start_time)
    if fd is not None:
        try:
            pidfd.send_signal(fd, 9)
            if not pidfd.wait_end(fd, _END_TIMEOUT):
                raise RuntimeFault(f"process {pid} does not end: it may hang in the kernel", step="kill the container")
        finally:
            os.close(fd)
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def remove_folder(folder: str) -> None:
    """Remove a container's state directory and the files in it."""
    try:
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if os.path.isdir(path) and not os.path.islink(path):
                remove_folder(path)
            else:
                os.unlink(path)
        os.rmdir(folder)
    except FileNotFoundError:
        return
