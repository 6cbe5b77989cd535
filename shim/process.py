"""How the spawner and the monitors fork: what a child does before its own work, and how its result comes back as a value.

The system calls are runtime.kernel's; this file is where these two processes meet them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

from runtime.kernel.fork import fork
from runtime.kernel.prctl import set_name, set_parent_death_signal
from shim import wire
from shim.errors import DeadlineExceeded, Internal
from shim.reactor import READ, Cancelled, Expired, Future

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Generator, Iterable
    from typing import Any, NoReturn, TypeVar

    from shim.reactor import Reactor

    T = TypeVar("T")
else:
    import _signal as signal  # without the enumerations of the signal module, whose pages every monitor would copy

__all__ = [
    "become_child",
    "call",
    "close_all_but",
    "drive",
    "execute",
    "fork",
    "here",
    "kill_group",
    "restore_signals",
    "set_name",
]

_CHANGED = (13, 25, 17, 15, 2, 1, 3)
"""SIGPIPE and SIGXFSZ, which Python ignores, and CHLD, TERM, INT, HUP and QUIT, which the loop handles."""
_SIGKILL = 9


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor except 0, 1, 2 and `keep`, also those of the parent's loop (close_range(2) between them)."""
    lowest = 3
    for fd in sorted({fd for fd in keep if fd > 2}):
        os.closerange(lowest, fd)
        lowest = fd + 1
    os.closerange(lowest, 2**31 - 1)


def restore_signals() -> None:
    """Undo what Python and the loop set up: an ignored signal would stay ignored through execve(2) in a container."""
    with contextlib.suppress(ValueError, OSError):
        signal.set_wakeup_fd(-1)
    for number in _CHANGED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def become_child(name: str, keep: Iterable[int], *, parent: int | None = None) -> None:
    """Turn a fresh fork into a process of its own: session, name, signals, descriptors; with `parent`: dies with it."""
    os.setsid()
    if parent is not None:
        set_parent_death_signal(_SIGKILL)
        if os.getppid() != parent:  # it died between the fork and the prctl
            os._exit(1)
    set_name(name)
    restore_signals()
    close_all_but(keep)


def kill_group(leader: int) -> None:
    """Kill the process group of `leader`, a child that has not been waited for yet; a finished one is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, _SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(leader, _SIGKILL)  # it may not lead its group yet


async def call(
    reactor: Reactor, name: str, work: Callable[[], dict[str, Any]], *, keep: Iterable[int] = (), seconds: float | None = None
) -> dict[str, Any]:
    """Run `work` in a short-lived child and give its value, so that nothing it does can block or change this process.

    Returns when the child has spoken: its memory is given back while we go on. Raises the shim error the child raised,
    DeadlineExceeded after `seconds` (its process group is killed then, and its end waited for), Internal when it died
    without a word.
    """
    ours, theirs = wire.pair()
    with ours:
        with theirs:
            pid = fork()
            if pid == 0:
                _work_and_exit(name, work, theirs.fileno(), keep)
        ended = reactor.children.expect(pid)
        said: Future[object] = Future()
        reactor.watch(ours.fileno(), READ, said.set)
        ended.on_done(lambda: said.set(None))
        try:
            await reactor.within(seconds, said)
        except (Expired, Cancelled) as error:
            kill_group(pid)
            await ended
            if isinstance(error, Expired):
                raise DeadlineExceeded(f"{name} did not end within {seconds:g} s and was killed") from None
            raise
        finally:
            reactor.unwatch(ours.fileno())
        ours.setblocking(False)
        try:
            reply, _fds = wire.recv(ours)
        except (wire.PeerClosed, BlockingIOError):
            raise Internal(f"{name} ended with status {await ended} and without a result") from None
    if "error" in reply:
        raise wire.error_of(reply["error"])
    value: dict[str, Any] = reply["ok"]
    return value


async def drive(reactor: Reactor, steps: Generator[int, None, T], seconds: float) -> T:
    """Go through steps of the runtime, waiting in the loop for the descriptors they name, and give their result.

    Raises errors as `call` does; after `seconds`, and when cancelled, what was done is taken back.
    """
    deadline = time.monotonic() + seconds
    try:
        while True:
            fd = next(steps)
            try:
                await reactor.within(max(0.0, deadline - time.monotonic()), reactor.readable(fd))
            finally:
                reactor.unwatch(fd)
    except StopIteration as stop:
        result: T = stop.value
        return result
    except Expired:
        raise DeadlineExceeded(f"the runtime did not answer within {seconds:g} s") from None
    except Exception as error:
        raise wire.error_of(wire.value_of(error)) from error
    finally:
        steps.close()


def here(work: Callable[[], T]) -> T:
    """Do in this process what is quick and cannot hang, with errors as `call` gives them.

    A fork costs more than such work: its own time, the pages both processes then copy, and the child's end.
    """
    try:
        return work()
    except Exception as error:
        raise wire.error_of(wire.value_of(error)) from error


def _work_and_exit(name: str, work: Callable[[], dict[str, Any]], sock_fd: int, keep: Iterable[int]) -> NoReturn:
    status = 1
    try:
        become_child(name, [sock_fd, *keep])
        with socket.socket(fileno=os.dup(sock_fd)) as sock:
            wire.send_outcome(sock, work)
        status = 0
    finally:
        os._exit(status)


async def execute(
    reactor: Reactor, argv: list[str], *, stdio: tuple[int, int, int], keep: Iterable[int] = (), seconds: float | None = None
) -> int:
    """Run a program with `stdio` as its 0, 1 and 2 and give its exit status; `keep` stay open in it under their numbers.

    Raises OSError when it cannot be executed, DeadlineExceeded when it was killed after `seconds`.
    """
    fault_read, fault_write = os.pipe2(os.O_CLOEXEC)
    try:
        pid = fork()
        if pid == 0:
            _exec_or_exit(argv, stdio, list(keep), fault_write)
    finally:
        os.close(fault_write)
    ended = reactor.children.expect(pid)
    try:
        status = await reactor.within(seconds, ended)
        fault = os.read(fault_read, 16)
    except (Expired, Cancelled) as error:
        kill_group(pid)
        await ended
        if isinstance(error, Expired):
            raise DeadlineExceeded(f"{argv[0]} did not end within {seconds:g} s and was killed") from None
        raise
    finally:
        os.close(fault_read)
    if fault:
        raise OSError(int(fault), os.strerror(int(fault)), argv[0])
    return status


def _exec_or_exit(argv: list[str], stdio: tuple[int, int, int], keep: list[int], fault: int) -> NoReturn:
    try:
        high = [os.dup(fd) for fd in stdio]  # no target may overwrite a source that is still needed
        for target, fd in enumerate(high):
            os.dup2(fd, target, inheritable=True)
        become_child("wherry-handler", [fault, *keep])
        for fd in keep:
            os.set_inheritable(fd, True)
        os.execv(argv[0], argv)  # noqa: S606 - a program given as a path and a list needs no shell
    except OSError as error:
        os.write(fault, str(error.errno).encode())
    finally:
        os._exit(127)
