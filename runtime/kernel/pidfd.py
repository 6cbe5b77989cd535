"""pidfd_open(2), pidfd_send_signal(2) and proc(5)'s stat: processes that cannot be mistaken for others."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal  # the signal module imports enum


_ESRCH, _EINVAL = 3, 22
"""As numbers: the errno module would be one more import of start, state and delete."""
LONGEST_MS = (1 << 31) - 1
"""The longest wait poll(2) can be told: 24.8 days."""


def stat(pid: int) -> tuple[str, int] | None:
    """Give the state letter (proc(5)) and the start time in clock ticks since boot; None when there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        text = os.read(fd, 1024)
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    fields = text[text.rindex(b")") + 2 :].split()
    return fields[0].decode(), int(fields[19])


def open_process(pid: int, start_time: int) -> int | None:
    """Give a pidfd of the process `pid` that started at `start_time`; None when that one has ended.

    The start time is read after the pidfd was opened: when both fit, the pidfd is the process meant, whatever became of the
    number since.
    """
    fd = open_number(pid)
    if fd is None:
        return None
    found = stat(pid)
    if found is None or found[1] != start_time or found[0] in "ZX":
        os.close(fd)
        return None
    return fd


def open_number(pid: int) -> int | None:
    """Give a pidfd of whatever process has the number `pid`; None when none has.

    Kernels up to 6.13 say EINVAL of a process that was reaped while its number still names a group or session.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (_ESRCH, _EINVAL):
            return None
        raise


def send_signal(pidfd: int, signal: int) -> bool:
    """Send `signal`; tell whether the process was still there."""
    try:
        _signal.pidfd_send_signal(pidfd, signal)
    except ProcessLookupError:
        return False
    return True


def getfd(pidfd: int, number: int) -> int:
    """Give a copy, close-on-exec, of a descriptor another process has (Linux 5.6); raise OSError."""
    from runtime.kernel.libc import system_call  # all else here does without ctypes, and so do state, start and delete

    return system_call("pidfd_getfd", "lll")(pidfd, number, 0)


def wait_end(pidfd: int, timeout: float) -> bool:
    """Wait up to `timeout` seconds for the process to end (a zombie has); tell whether it has."""
    import select

    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(min(timeout * 1000, LONGEST_MS)))
