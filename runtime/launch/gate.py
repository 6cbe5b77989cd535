"""The gate between create and start: a socket in the container's state directory that init holds.

init waits in accept(2). A starter, which may be any process that can reach the directory, connects and says GO; init runs the
startContainer hooks and executes the program. The connection is close-on-exec, so its end without a word means success, and a
FAULT says why not. Nothing but the open socket is needed of the creator, which may be long gone.
"""

from __future__ import annotations

import _socket
import os

from runtime.errors import ProtocolFault, RuntimeFault, StateFault
from runtime.launch.protocol import GO, LISTENER, TAKEN, Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import NoReturn, TypeVar

    T = TypeVar("T")
else:
    import _signal

_BACKLOG = 8


def by_short_name(folder: str, name: str, use: Callable[[str], T]) -> T:
    """Call `use` with a short name of folder/name: a socket's address holds 107 bytes (unix(7))."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return use(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


def listen(folder: str, name: str) -> _socket.socket:
    """Make the gate's socket under `name`; raise RuntimeFault."""
    gate = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        by_short_name(folder, name, gate.bind)
        gate.listen(_BACKLOG)
    except OSError as error:
        gate.close()
        raise RuntimeFault.from_os(error, "make the gate", path=os.path.join(folder, name)) from error
    return gate


def _connect(folder: str, flags: int = 0) -> _socket.socket:
    from runtime.state import GATE

    starter = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC | flags)
    try:
        by_short_name(folder, GATE, starter.connect)
    except BaseException:
        starter.close()
        raise
    return starter


def is_waiting(folder: str) -> bool:
    """Tell whether init holds the gate; it notices, and waits on. Nobody waits for one that stands still."""
    try:
        _connect(folder, _socket.SOCK_NONBLOCK).close()
    except BlockingIOError:
        return True  # as many have looked as may wait for an answer (unix(7))
    except OSError:
        return False
    return True


def wait(gate: _socket.socket) -> Link:
    """Wait until a starter says GO and give the connection; those that say nothing only looked."""
    while True:
        fd, _ = gate._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - socket.accept without the socket module
        starter = Link(_socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd), "the starter")
        try:
            if starter.receive_any()[0] == GO:
                return starter
        except (RuntimeFault, OSError):
            pass
        starter.close()


def end_when_told() -> None:
    """End by the signals that ask for it, also as the first process of a PID namespace.

    The kernel shields that one from signals it has no handler for (pid_namespaces(7)). execve(2) undoes the handlers.
    """
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM):
        _signal.signal(number, _end)


def _end(number: int, _frame: object) -> NoReturn:
    os._exit(128 + number)


class Opening:
    """A start under way. `fileno` becomes readable when it is over; `finish` waits for that and gives the outcome."""

    __slots__ = ("_link", "_place")

    def __init__(self, folder: str, container_id: str) -> None:
        """Tell init to go on, without waiting; raise StateFault when nobody waits at the gate."""
        self._place = (folder, container_id)
        try:
            self._link = Link(_connect(folder), "init")
        except OSError as error:
            raise StateFault(f"container {container_id!r} does not wait to be started", errno=error.errno) from error
        try:
            self._link.send(GO)
        except BaseException:
            self._link.close()
            raise

    def fileno(self) -> int:
        """Give the descriptor to wait on."""
        return self._link.socket.fileno()

    def finish(self) -> None:
        """Return when the program was executed; raise the fault that prevented it.

        init's seccomp listener, where it has one, goes to its agent in between.
        """
        try:
            kind, payload = self._link.receive_any()
            if kind == LISTENER:
                self._hand_over(int(payload))
                self._link.send(TAKEN)
                kind, _ = self._link.receive_any()
        finally:
            self._link.close()
        if kind:
            raise ProtocolFault(f"init said {kind!r} instead of executing the program", step="start")

    def _hand_over(self, number: int) -> None:
        from runtime.launch.agent import hand_over
        from runtime.state import read_record

        state = read_record(*self._place)
        hand_over(state, state.pid, number, "created")

    def close(self) -> None:
        """Stop waiting; the start goes on."""
        self._link.close()


def open_gate(folder: str, container_id: str) -> None:
    """Let the container start and return when its program was executed; raise the fault that prevented it."""
    Opening(folder, container_id).finish()
