"""Stay with a process until it ends: pass signals on, adopt and reap, carry the terminal, give its exit code."""

from __future__ import annotations

import os
import select

from runtime.kernel.prctl import set_child_subreaper

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable

    from runtime.cli.notify import NotifySocket
    from runtime.cli.terminal import Terminal
else:
    import _signal

_KEPT = ("SIGKILL", "SIGSTOP", "SIGURG", "SIGPIPE", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL")
"""Signals that cannot be caught, that the runtime itself causes, or that tell of a fault of ours."""


def adopt() -> None:
    """Become the parent of what stage1 leaves behind, so that its exit code comes here."""
    set_child_subreaper()


def stop_adopting() -> None:
    """Let processes the container leaves behind go to the next subreaper."""
    set_child_subreaper(enabled=False)


class Watch:
    """Turns signals into something to poll: every one that arrives is a byte in a pipe (signal.set_wakeup_fd)."""

    def __init__(self) -> None:
        self.fd, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        kept = {getattr(_signal, name) for name in _KEPT}
        _signal.set_wakeup_fd(self._writer)
        for number in range(1, _signal.NSIG):
            if number not in kept:
                try:
                    _signal.signal(number, _ignore)
                except (OSError, ValueError):
                    continue  # two numbers belong to the C library

    def numbers(self) -> bytes:
        """Give the signals that have arrived."""
        try:
            return os.read(self.fd, 256)
        except BlockingIOError:
            return b""


def _ignore(_number: int, _frame: object) -> None:
    """Take the signal; the byte in the pipe is what counts."""


def reap(pid: int) -> int | None:
    """Collect every child that has ended; give the exit code of `pid` when it is among them, 128 + n for a signal."""
    code = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if ended == 0:
            return code
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            code = code if code >= 0 else 128 - code


def attend(
    pid: int,
    watch: Watch,
    terminal: Terminal | None,
    forward: Callable[[int], None],
    notify: NotifySocket | None = None,
) -> int:
    """Serve a process until it ends and give its exit code; `forward` passes one signal on."""
    poll = select.poll()
    poll.register(watch.fd, select.POLLIN)
    if notify is not None:
        poll.register(notify.fileno(), select.POLLIN)
    for fd in terminal.sources() if terminal is not None else ():
        poll.register(fd, select.POLLIN)
    code = reap(pid)
    while code is None:
        for fd, _ in poll.poll():
            if fd == watch.fd:
                code = _signals(pid, watch, terminal, forward)
            elif notify is not None and fd == notify.fileno():
                if not notify.take():
                    poll.unregister(fd)
            elif terminal is not None and not terminal.transfer(fd):
                poll.unregister(fd)
    if terminal is not None:
        terminal.drain()
    return code


def _signals(pid: int, watch: Watch, terminal: Terminal | None, forward: Callable[[int], None]) -> int | None:
    code = None
    for number in watch.numbers():
        if number == _signal.SIGCHLD:
            ended = reap(pid)
            code = ended if code is None else code
        elif number == _signal.SIGWINCH and terminal is not None:
            terminal.copy_size()
        elif code is None:
            forward(number)
    return code


def forward_to(pid: int) -> Callable[[int], None]:
    """Give the function that sends a signal to a child of ours, which keeps its number until it is reaped."""

    def forward(number: int) -> None:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            return

    return forward
