"""fork(2), guarded: the only place of Wherry that forks.

A fork copies one thread. A lock another thread holds at that moment stays locked in the child for ever, so a process with
threads must not fork; this one refuses instead of hanging once in a thousand times.
"""

from __future__ import annotations

import errno
import os

from runtime.errors import RuntimeFault
from runtime.kernel.libc import system_call, u64


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
    try:
        return os.fork()
    except BlockingIOError as error:
        raise _full(error) from error


def _full(error: OSError) -> RuntimeFault:
    message = "no more processes may be made here: raise pids.max of the cgroups above, or the caller's RLIMIT_NPROC"
    return RuntimeFault(message, step="fork", errno=error.errno)


_clone3 = system_call("clone3", "pl")
_CLONE_INTO_CGROUP = 0x200000000
_SIGCHLD = 17
_UNAVAILABLE = (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EINVAL, errno.E2BIG)


def fork_into(cgroup_fd: int, task_fd: int | None = None) -> tuple[int, bool]:
    """Fork with the child in the v2 cgroup whose directory is `cgroup_fd`; give what `fork` gives, and whether it is there.

    Moving a running process waits for every CPU (4 to 16 ms measured); being born in the cgroup costs nothing. The interpreter
    needs none of the work os.fork does around fork(2): that is for threads, and there are none. Where clone3(2) is not to be
    had the child is forked as usual and is not in the cgroup.
    """
    count = threads(task_fd)
    if count > 1:
        raise RuntimeError(f"refusing to fork: this process has {count} threads")
    if cgroup_fd >= 0:
        arguments = u64(_CLONE_INTO_CGROUP, 0, 0, 0, _SIGCHLD, 0, 0, 0, 0, 0, cgroup_fd)
        try:
            return _clone3(arguments, len(arguments)), True
        except OSError as error:
            if error.errno == errno.EAGAIN:
                raise _full(error) from error
            if error.errno not in _UNAVAILABLE:
                raise
    return fork(task_fd), False
