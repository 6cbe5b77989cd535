"""Jobs for the tests of the spawner; they run in its children."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from shim.errors import ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable

    Report = Callable[[dict[str, Any]], None]


def echo(params: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    for step in range(params.get("steps", 0)):
        report({"step": step})
    for fd in fds:
        os.write(fd, b"from the job")
    return {"params": params, "pid": os.getpid(), "group": os.getpgrp(), "size": "x" * params.get("size", 0)}


def about(_params: dict[str, Any], _fds: list[int], _report: Report) -> dict[str, Any]:
    return {
        "fds": sorted(int(name) for name in os.listdir("/proc/self/fd")),
        "modules": sorted(sys.modules),
        "threads": len(os.listdir("/proc/self/task")),
        "ignored": [int(number) for number in signal.Signals if signal.getsignal(number) == signal.SIG_IGN],
    }


def fail(params: dict[str, Any], _fds: list[int], _report: Report) -> dict[str, Any]:
    kind = params["how"]
    if kind == "typed":
        raise ResourceExhausted("disk: full")
    if kind == "os":
        raise OSError(28, "no space left", "/x")
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "exit":
        sys.exit(7)
    if kind == "unserialisable":
        return {"value": object()}
    raise ZeroDivisionError(kind)


def hang(params: dict[str, Any], _fds: list[int], report: Report) -> NoReturn:
    """Wait for ever, with a child in the group, one that left the group, and one that left the session."""
    pids = [os.getpid()]
    for leave in (lambda: None, os.setpgrp, os.setsid)[: params.get("children", 3)]:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            leave()
            os.close(writer)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                signal.pause()
        os.close(reader)
        pids.append(pid)
    report({"pids": pids})
    while True:
        signal.pause()


def leave_child(_params: dict[str, Any], _fds: list[int], _report: Report) -> dict[str, Any]:
    """End while a child goes on."""
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    return {"child": pid}


def any_of(params: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """Be the job that params["do"] names, for a kind that is reusable."""
    if params["do"] == "leak":
        for _ in range(params["count"]):
            os.pipe()
        return {"pid": os.getpid()}
    result: dict[str, Any] = globals()[params["do"]](params, fds, report)
    return {"pid": os.getpid(), **result}
