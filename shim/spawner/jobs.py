"""What the spawner can be asked to do, and the process in which it is done."""

from __future__ import annotations

import importlib
import os
import socket

from shim import process, wire
from shim.errors import Unimplemented
from shim.spawner import forks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    Run = Callable[[dict[str, Any], list[int], Callable[[dict[str, Any]], None]], dict[str, Any]]

KINDS = {
    "cni": "shim.pod.network_job:run",
    "unpack": "shim.image.unpack.job:run",
    "rmtree": "shim.image.unpack.remove:run",
    "sockets": "shim.pod.sockets_job:run",
    "usage": "shim.stats.walk:run",
    "hostpaths": "shim.container.spec.look:run",
    "relabel": "shim.container.relabel_job:run",
    "volumes": "shim.container.volumes_job:run",
    "nri": "shim.nri.launch:run",
    "apparmor": "shim.container.apparmor_job:run",
    "features": "shim.pod.binaries_job:run",
    "layers": "shim.pod.layers_job:run",
    "checkpoint": "shim.container.checkpoint_job:run",
}
"""kind → "module:function". A function gets its parameters, descriptors it may close, and a way to report progress."""

REUSABLE = frozenset({"cni"})
"""Kinds whose process may do another job of the kind. Most of what a short job costs is the copying of pages that a fresh
fork writes to first. A job that failed, forgot a child or descriptors, or did not come back to its network namespace is its
process's last one, and a job that is killed takes its process along."""
RARE = frozenset({"sockets", "relabel", "volumes", "nri", "features", "layers", "checkpoint"})
"""Kinds whose modules a job imports itself: not many pods need them, and what the spawner has every fork of it pays for."""
MAX_DESCRIPTORS = 32
"""Descriptors a process may have and still do another job."""


def function_of(kind: str, kinds: dict[str, str]) -> Run:
    """Import the function of a kind of job; raise Unimplemented for an unknown kind, ImportError as it comes."""
    target = kinds.get(kind)
    if target is None:
        raise Unimplemented(f"the spawner has no job {kind!r}")
    module, _, name = target.partition(":")
    run: Run = getattr(importlib.import_module(module), name)
    return run


def run_job(message: dict[str, Any], fds: list[int], sock_fd: int, kinds: dict[str, str]) -> NoReturn:
    """Be a job, in a fresh child of the spawner: do the work, send the result or the error, end.

    A process of a reusable kind says "again" with its result and waits for the next message. It dies with the spawner, and
    leads a session and a process group of its own, by which it is killed.
    """
    status = 1
    try:
        parent = os.getppid()
        kind = str(message.get("kind"))
        process.become_child(f"wherry-{kind}", [sock_fd, *fds], parent=parent)
        forks.run_deferred()
        with socket.socket(fileno=os.dup(sock_fd)) as sock:
            os.close(sock_fd)
            while _do(sock, message, fds, kinds):
                message, fds = wire.recv(sock)
        status = 0
    except wire.PeerClosed:
        status = 0
    finally:
        os._exit(status)


def _do(sock: socket.socket, message: dict[str, Any], fds: list[int], kinds: dict[str, str]) -> bool:
    """Do one job and tell its outcome; tell whether this process may do another one."""
    kind, params = str(message.get("kind")), dict(message.get("params") or {})
    home = _network() if kind in REUSABLE else 0
    try:
        done = function_of(kind, kinds)(params, fds, lambda data: wire.send(sock, {"progress": data}))
        again = bool(home) and not fds and _is_clean(home)
        wire.send(sock, {"ok": done, "again": True} if again else {"ok": done})
    except BaseException as error:  # noqa: BLE001 - it crosses as a value
        wire.send(sock, {"error": wire.value_of(error)})
        return False
    return again


def _network() -> int:
    """Give the number of the network namespace this process is in."""
    return os.stat("/proc/self/ns/net").st_ino


def _is_clean(home: int) -> bool:
    """Tell whether the job came back to its network namespace and left no child and no heap of descriptors.

    Sockets that are kept for the next job are few; a thread that waits for the kernel to end a deletion is no harm.
    """
    return _network() == home and not _has_children() and len(os.listdir("/proc/self/fd")) <= MAX_DESCRIPTORS


def _has_children() -> bool:
    """Tell whether there are children, also ended ones nobody has waited for."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
