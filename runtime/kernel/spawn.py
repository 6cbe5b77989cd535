"""Start a program in a child process: fork(2), descriptors in place, signals as a program expects them, execve(2)."""

from __future__ import annotations

import os

from runtime.kernel.execute import close_range
from runtime.kernel.fork import fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Mapping, Sequence
else:
    import _signal  # the signal module imports enum

FAILED = 127
"""Exit code of a child that could not execute its program, as a shell's."""


def default_signals() -> None:
    """Give every signal its default action and unblock all: Python ignores SIGPIPE, and callers may handle or block others."""
    _signal.set_wakeup_fd(-1)
    for number in range(1, _signal.NSIG):
        if _signal.getsignal(number) not in (_signal.SIG_DFL, None):
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def spawn(
    argv: Sequence[str],
    environment: Mapping[str, str],
    stdio: tuple[int, int, int],
    *,
    path: str | None = None,
    cwd: str | None = None,
    task_fd: int | None = None,
) -> int:
    """Start `path` (argv[0] by default) and give its process id; the child leads a process group of its own.

    Only `stdio` reaches the program, as 0, 1 and 2. A program that cannot be executed shows as exit code 127, with the reason
    on its standard error.
    """
    pid = fork(task_fd)
    if pid:
        return pid
    try:
        os.setpgid(0, 0)
        default_signals()
        for number, fd in enumerate([os.dup(fd) for fd in stdio]):
            os.dup2(fd, number)
        close_range(3)
        if cwd is not None:
            os.chdir(cwd)
        os.execve(path or argv[0], list(argv), dict(environment))  # noqa: S606 - this is the one place that starts programs
    except BaseException as error:  # noqa: BLE001 - nothing may return into the parent's code
        reason = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else str(error)
        os.write(2, f"{path or argv[0]}: {reason}\n".encode("utf-8", "replace"))
    finally:
        os._exit(FAILED)


def wait(pid: int) -> int:
    """Wait for a child and give its exit code, 128 + n when signal n ended it."""
    status = os.waitpid(pid, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
