"""The nursery: the process whose forks are the monitors, and which does nothing else.

    spawner → nursery                                        nursery → spawner
    ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
    {seq, pod_id, state_dir} + the listening socket          {seq, ok: {pid}} or {seq, error}

What a monitor costs, in time and in memory, is the pages it writes to: CPython counts references in every object it uses, so
each of them is a page copied. The spawner runs a loop and keeps jobs' modules; whatever it wrote to between two forks would be
copied for one more pod. So monitors come from here, where only their own modules are, where nothing happens between two
forks, and where what they will allocate lies close together.

Pods come in rows. So the nursery forks a spare keeper with its monitor when it has answered, and the next pod's are there
already; when none comes for some seconds the spare ends. It is nobody's: it has no name in any file, holds nothing but its
link to the nursery, and ends with it.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys

from runtime.errors import RuntimeFault
from runtime.kernel import pidfd
from runtime.kernel.heap import trim
from runtime.kernel.prctl import set_child_subreaper
from shim import process, wire
from shim.spawner.warmth import fill_holes, import_packages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

WARM = ("runtime",)
"""Packages of which everything is imported before the first fork: they import much where they use it."""
COLD = tuple(f"runtime.{name}" for name in ("checkpoint", "cli", "kernel.exefile", "lean", "plain", "pyc", "sealed", "start"))
"""Parts of them that only commands need, or that are too rare for every fork to carry them."""
REFILL_MS = 10
"""Milliseconds without another pod after which a spare is forked: pods that come at once are not held up by it."""
SPARE_MS = 5000
"""Milliseconds a spare waits for a pod."""


def start_nursery(others: Iterable[socket.socket]) -> tuple[int, socket.socket]:
    """Fork the nursery and give its pid and our end of its link; it closes `others`, and dies with us."""
    ours, theirs = wire.pair()
    parent = os.getpid()
    with theirs:
        pid = process.fork()
        if pid == 0:
            for sock in (ours, *others):
                sock.close()
            _be_nursery(theirs, parent)
    return pid, ours


def _be_nursery(sock: socket.socket, parent: int) -> NoReturn:
    status = 1
    try:
        process.become_child("wherry-nursery", [sock.fileno()], parent=parent)
        set_child_subreaper()
        warm()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for monitors; they undo this before anything else
        _Nursery(sock).run()
    except wire.PeerClosed:
        status = 0
    finally:
        os._exit(status)


def warm() -> None:
    """Import and rehearse what monitors do, and keep the collector from touching (and so copying) those pages."""
    from runtime.launch.alone import look  # noqa: PLC0415 - the spawner, which imports this file, does not need it
    from shim.spawner.rehearsal import rehearse  # noqa: PLC0415 - the same, and it imports the monitor

    import_packages(WARM, COLD)
    look()
    try:
        rehearse()
    except Exception as error:  # noqa: BLE001 - nothing depends on it
        sys.stderr.write(f"wherry-nursery: the rehearsal failed: {type(error).__name__}: {error}\n")
    fill_holes()
    trim()
    gc.freeze()


class _Nursery:
    """The loop, and the link to a spare while there is one."""

    __slots__ = ("_sock", "_spare")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._spare: tuple[int, int, socket.socket] | None = None
        """Its keeper's number and pidfd, and the link to it."""

    def run(self) -> None:
        """Serve until the spawner has gone, which is raised as wire.PeerClosed."""
        poll = select.poll()
        poll.register(self._sock.fileno(), select.POLLIN)
        wait: float | None = None
        while True:
            if poll.poll(wait):
                self._serve()
                wait = REFILL_MS if self._spare is None else SPARE_MS
            elif self._spare is None:
                self._spare = self._fork_spare()
                wait = None if self._spare is None else SPARE_MS
            else:
                self._drop()
                wait = None

    def _serve(self) -> None:
        message, fds = wire.recv(self._sock)
        try:
            pod = (message["pod_id"], message["state_dir"])
            pid = self._assign(pod, fds[0]) or _fork(pod, fds[0])
            reply = {"ok": {"pid": pid}}
        except Exception as error:  # noqa: BLE001 - it crosses as a value
            reply = {"error": wire.value_of(error)}
        finally:
            for fd in fds:
                os.close(fd)
        wire.send(self._sock, {"seq": message["seq"], **reply})

    def _assign(self, pod: tuple[str, str], listener: int) -> int:
        """Give the pod to the spare and its pid; 0 when there is none, or it has died."""
        if self._spare is None:
            return 0
        from shim.monitor.keeper import Post  # noqa: PLC0415 - imported long ago, by the rehearsal

        pid, handle, link = self._spare
        try:
            if pidfd.wait_end(handle, 0):
                return 0
            Post.tell(link, pod, listener)
        except OSError:
            return 0
        finally:
            self._drop()
        return pid

    def _fork_spare(self) -> tuple[int, int, socket.socket] | None:
        ours, theirs = wire.pair()
        with theirs:
            try:
                pid = _fork(None, theirs.fileno())
                return pid, os.pidfd_open(pid), ours
            except (OSError, RuntimeFault):
                ours.close()  # the next pod will tell
                return None

    def _drop(self) -> None:
        """Close the link to the spare: one that has no pod ends."""
        if self._spare is not None:
            _pid, handle, link = self._spare
            os.close(handle)
            link.close()
            self._spare = None


def _fork(pod: tuple[str, str] | None, fd: int) -> int:
    """Fork a keeper, for a pod with its listening socket, or a spare one with its link; give its pid."""
    pid = process.fork()
    if pid == 0:
        from shim.monitor.keeper import Post  # noqa: PLC0415 - imported long ago, by the rehearsal
        from shim.monitor.server import run_monitor  # noqa: PLC0415 - the same

        run_monitor(Post(socket.socket(fileno=fd), pod))
    return pid
