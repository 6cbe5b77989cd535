"""What the spawner can be asked to do, and the process in which it is done."""

from __future__ import annotations

import importlib
import os
import socket
from typing import TYPE_CHECKING, Any, NoReturn, cast

from shim import process, wire
from shim.errors import Unimplemented
from shim.spawner import forks

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[[dict[str, Any], list[int], Callable[[dict[str, Any]], None]], dict[str, Any]]

KINDS = {
    "cni": "shim.pod.network_job:run",
    "unpack": "shim.image.unpack.job:run",
    "rmtree": "shim.image.unpack.remove:run",
    "sockets": "shim.pod.sockets_job:run",
}
"""kind → "module:function". A function gets its parameters, descriptors it may close, and a way to report progress."""


def function_of(kind: str, kinds: dict[str, str]) -> Run:
    """Import the function of a kind of job; raise Unimplemented for an unknown kind, ImportError as it comes."""
    target = kinds.get(kind)
    if target is None:
        raise Unimplemented(f"the spawner has no job {kind!r}")
    module, _, name = target.partition(":")
    return cast("Run", getattr(importlib.import_module(module), name))


def run_job(message: dict[str, Any], fds: list[int], sock_fd: int, kinds: dict[str, str]) -> NoReturn:
    """Be a job, in a fresh child of the spawner: do the work, send the result or the error, end.

    The job dies with the spawner, and leads a session and a process group of its own, by which it is killed.
    """
    status = 1
    try:
        parent = os.getppid()
        kind = str(message.get("kind"))
        process.become_child(f"wherry-{kind}", [sock_fd, *fds], parent=parent)
        forks.run_deferred()
        with socket.socket(fileno=os.dup(sock_fd)) as sock:
            os.close(sock_fd)
            params = dict(message.get("params") or {})
            wire.send_outcome(
                sock, lambda: function_of(kind, kinds)(params, fds, lambda data: wire.send(sock, {"progress": data}))
            )
        status = 0
    finally:
        os._exit(status)
