"""fork(2), guarded: the only place of Wherry that forks.

A fork copies one thread. A lock another thread holds at that moment stays locked in the child for ever, so a process with
threads must not fork; this one refuses instead of hanging once in a thousand times.
"""

from __future__ import annotations

import os


def threads(task_fd: int | None = None) -> int:
    """Count the threads of this process: /proc/self/task has one directory each (proc(5)).

    `task_fd` is that directory opened before /proc was replaced by a container's.
    """
    return (os.stat("/proc/self/task") if task_fd is None else os.stat(task_fd)).st_nlink - 2


def fork(task_fd: int | None = None) -> int:
    """Fork this process and give 0 in the child and the child's id in the parent; raise RuntimeError when it has threads."""
    count = threads(task_fd)
    if count > 1:
        raise RuntimeError(f"refusing to fork: this process has {count} threads")
    return os.fork()
