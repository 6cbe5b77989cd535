"""The nursery: the process whose forks are the monitors, and which does nothing else.

    spawner → nursery                                        nursery → spawner
    ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
    {seq, pod_id, state_dir} + the listening socket          {seq, ok: {pid}} or {seq, error}

What a monitor costs, in time and in memory, is the pages it writes to: CPython counts references in every object it uses, so
each of them is a page copied. The spawner runs a loop and keeps jobs' modules; whatever it wrote to between two forks would be
copied for one more pod. So monitors come from here, where only their own modules are, where nothing happens between two
forks, and where what they will allocate lies close together.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys

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
        while True:
            _serve(sock)
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


def _serve(sock: socket.socket) -> None:
    message, fds = wire.recv(sock)
    try:
        pid = process.fork()
        if pid == 0:
            from shim.monitor.server import run_monitor  # noqa: PLC0415 - imported long ago, by the rehearsal

            run_monitor(message["pod_id"], message["state_dir"], socket.socket(fileno=fds[0]))
        reply = {"ok": {"pid": pid}}
    except Exception as error:  # noqa: BLE001 - it crosses as a value
        reply = {"error": wire.value_of(error)}
    finally:
        for fd in fds:
            os.close(fd)
    wire.send(sock, {"seq": message["seq"], **reply})
