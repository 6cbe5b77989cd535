"""The keeper: what stands beside a pod while nothing happens there.

A monitor that has started a container has written to 3 MB of what it shares with the nursery, because CPython counts the
references to everything it uses. None of that is needed to wait. So a pod's process is the keeper, a loop so flat that it
writes to a tenth of it, and the monitor is a fork of the keeper that works, goes to rest, and ends:

    keeper → monitor                              monitor → keeper
    ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
    what the last one left, by fork(2)            its state and its descriptors when it goes to rest (rest.py)
    "pid status": a container that is a child
    of the keeper, because an earlier monitor
    made it, has ended

The keeper inherits a resting monitor's children (PR_SET_CHILD_SUBREAPER), watches its descriptors and writes what containers
say to their logs. When anything else is ready, or a container has ended, it forks the next monitor and closes what that one
has now: the end of a pipe or of a client is seen only when nobody else holds it open.

When a monitor ends without having gone to rest the keeper ends too, and when the keeper dies the kernel kills the monitor:
for everybody else they are one process, known by the keeper's id.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time

from runtime.kernel.prctl import set_child_subreaper, set_dumpable, set_name, set_parent_death_signal
from shim import process, wire
from shim.monitor.logs import Clock, Framer, LogFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import NoReturn
else:
    import _signal as signal  # without the enumerations of the signal module, whose pages every keeper would copy

MESSAGE_LIMIT = 128 * 1024
"""Bytes of a resting monitor's state; the kernel bounds a datagram by the send buffer."""
FDS_LIMIT = 240
"""Descriptors of a resting monitor; the kernel passes at most 253 at once (unix(7))."""
_READ_SIZE = 64 * 1024
_HANDLED = (17, 15, 2, 1, 3, 13)
"""CHLD, which wakes us, and TERM, INT, HUP, QUIT and PIPE, which mean nothing to us but must not end us. Ignored signals would
stay ignored in every container through execve(2); handlers do not."""
_SIGKILL = 9
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_SPACE = socket.CMSG_SPACE(4 * FDS_LIMIT)


class Tail:
    """An output of a container, read while its monitor rests."""

    __slots__ = ("_clock", "_fd", "framer", "log")

    def __init__(self, fd: int, name: str, log: LogFile | None, clock: Clock) -> None:
        self._fd = fd
        self._clock = clock
        self.framer = Framer(name)
        self.log = log

    def move(self) -> bool:
        """Log a chunk; False when a monitor has to see to it: the output has ended, or the log cannot be written."""
        try:
            chunk = os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            return True
        except OSError:  # the last user of a terminal closed it
            return False
        if not chunk:
            return False
        if self.log is None:
            return True
        self.log.write(self.framer.feed(chunk, self._clock.stamp(time.time_ns())))
        return not self.log.losing


class Rest:
    """What a monitor left when it went to rest."""

    __slots__ = ("children", "ended", "events", "fds", "patience", "since", "state", "tails")

    def __init__(self, datagram: bytes, fds: list[int]) -> None:
        """Take apart "patience;pids;events;outputs", a line of numbers and names, and the state, which only monitors read."""
        head, _, self.state = datagram.partition(b"\n")
        patience, children, events, outputs = head.decode().split(";")
        self.patience = float(patience)
        self.since = time.monotonic()
        self.fds = fds
        self.children = [int(pid) for pid in children.split()]
        self.events = [int(mask) for mask in events.split()]
        self.ended: dict[int, int] = {}
        """Wait status by pid of those of `children` that have ended."""
        self.tails: dict[int, Tail] = {}
        """By the descriptor."""
        logs: dict[str, LogFile] = {}
        clock = Clock()
        for output in outputs.split():
            name, index, log = output.split(":")
            if log != "-1" and log not in logs:
                logs[log] = LogFile("", fds[int(log)])
            fd = fds[int(index)]
            self.tails[fd] = Tail(fd, name, logs.get(log), clock)

    def fd(self, index: int) -> int:
        """Give a descriptor by the number the state has for it; -1 stands for none."""
        return self.fds[index] if index >= 0 else -1

    def slept(self) -> float:
        """Give the seconds since the monitor went to rest."""
        return time.monotonic() - self.since

    def close(self) -> None:
        """Close the descriptors."""
        for fd in self.fds:
            os.close(fd)


class Post:
    """The pod to stand beside: given, or told over a link to a spare, whose monitor and keeper read one message each."""

    __slots__ = ("_link", "listener", "pod_id", "state_dir")

    def __init__(self, sock: socket.socket, pod: tuple[str, str] | None) -> None:
        """`pod` is its id and its directory, and `sock` listens there; without one `sock` is the link."""
        self._link = sock if pod is None else None
        self.listener = sock
        self.pod_id, self.state_dir = pod or ("", "")

    def take(self) -> None:
        """Wait for the pod, if it is not known; raise wire.PeerClosed when there will be none."""
        if self._link is None:
            return
        told, fds = _take(self._link)
        if not told:
            raise wire.PeerClosed("no pod has come")
        self._link.close()
        self._link = None
        self.listener = socket.socket(fileno=fds[0])
        self.pod_id, _, self.state_dir = told.decode().partition("\n")

    @staticmethod
    def tell(link: socket.socket, pod: tuple[str, str], listener: int) -> None:
        """Tell a spare of its pod; raise OSError when it has died."""
        for _reader in ("monitor", "keeper"):
            socket.send_fds(link, ["\n".join(pod).encode()], [listener])


class Keeper:
    """The loop."""

    __slots__ = ("_post", "_wake", "_wake_write", "_work")

    def __init__(self, post: Post, work: Callable[[socket.socket, Rest | None], None]) -> None:
        """`work` is what a monitor does, first of all to take the post; its first argument is its link to the keeper."""
        self._post = post
        self._work = work
        self._wake, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in _HANDLED:
            signal.signal(number, _no_action)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def run(self) -> None:
        """Return when a monitor has ended for good."""
        rest: Rest | None = None
        while True:
            link = self._fork(rest)
            children: list[int] = []
            if rest is not None:
                rest.close()
                children = rest.children
            rest = self._stand_by(link, children)
            link.close()
            if rest is None:
                return
            self._post.take()
            self._watch(rest)

    def _fork(self, rest: Rest | None) -> socket.socket:
        ours, theirs = wire.pair()
        own = os.getpid()
        pid = process.fork()
        if pid == 0:
            self._be_monitor(theirs, rest, own)
        theirs.close()
        return ours

    def _be_monitor(self, link: socket.socket, rest: Rest | None, parent: int) -> NoReturn:
        status = 1
        try:
            set_parent_death_signal(_SIGKILL)
            if os.getppid() == parent:
                set_name("wherry-monitor")
                set_child_subreaper()
                signal.set_wakeup_fd(-1)
                os.close(self._wake)
                os.close(self._wake_write)
                self._work(link, rest)
                status = 0
        finally:
            os._exit(status)

    def _stand_by(self, link: socket.socket, children: list[int]) -> Rest | None:
        """Tell a working monitor of the ends of `children` until it goes to rest; None when it ends."""
        told: dict[int, int] = {}
        poll = select.poll()
        poll.register(link.fileno(), select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            for fd, _events in poll.poll():
                if fd != self._wake:
                    return _receive(link, told)
                for pid, status in self._reap(children):
                    told[pid] = status
                    _tell(link, pid, status)

    def _watch(self, rest: Rest) -> None:
        """Write logs until something happens that needs a monitor."""
        epoll = select.epoll()
        epoll.register(self._wake, select.EPOLLIN)
        epoll.register(self._post.listener.fileno(), select.EPOLLIN)
        for fd, events in zip(rest.fds, rest.events, strict=True):
            if events:
                epoll.register(fd, events)
        while not rest.ended:
            for fd, _events in epoll.poll():
                tail = rest.tails.get(fd)
                if fd == self._wake:
                    rest.ended.update(self._reap(rest.children))
                elif tail is None or not tail.move():
                    epoll.close()
                    return
        epoll.close()

    def _reap(self, children: list[int]) -> list[tuple[int, int]]:
        """Wait for all that have ended and give those of `children`, with statuses as a shell gives them."""
        os.read(self._wake, 4096)
        found: list[tuple[int, int]] = []
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                return found
            if info is None:
                return found
            if info.si_pid in children:
                found.append((info.si_pid, info.si_status if info.si_code == os.CLD_EXITED else 128 + info.si_status))


def _take(link: socket.socket) -> tuple[bytes, list[int]]:
    datagram, ancillary, _flags, _ = link.recvmsg(MESSAGE_LIMIT + 1, _SPACE, _CLOEXEC)
    data = b"".join([rights for _level, _kind, rights in ancillary])
    return datagram, [int.from_bytes(data[at : at + 4], sys.byteorder) for at in range(0, len(data), 4)]


def _receive(link: socket.socket, told: dict[int, int]) -> Rest | None:
    """Take what a monitor leaves; None when it has ended without a word."""
    datagram, fds = _take(link)
    if not datagram:
        return None
    rest = Rest(datagram, fds)
    for pid in rest.children:  # it may not have read of all
        if pid in told:
            rest.ended[pid] = told[pid]
    return rest


def _tell(link: socket.socket, pid: int, status: int) -> bool:
    try:
        return link.send(b"%d %d" % (pid, status)) > 0
    except OSError:  # it has ended: what it left is read next
        return False


def _no_action(_number: int, _frame: object) -> None:
    """Exist, so that the signal interrupts the wait and writes to the wakeup descriptor."""


def settle(fd: int) -> None:
    """Make a fresh fork of the nursery a process of its own, which holds nothing but one descriptor."""
    os.setsid()
    set_name("wherry-keeper")
    signal.signal(17, signal.SIG_DFL)
    set_dumpable(dumpable=False)
    set_child_subreaper()
    os.chdir("/")
    os.closerange(3, fd)
    os.closerange(fd + 1, 2**31 - 1)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for standard in range(3):
        os.dup2(null, standard, inheritable=True)
    os.close(null)
