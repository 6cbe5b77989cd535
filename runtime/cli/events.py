"""events: what a container uses, once or again and again, and when its memory runs out."""

from __future__ import annotations

import os
import select
import sys
from time import monotonic

from runtime import api
from runtime.apply.cgroup import from_paths
from runtime.apply.cgroup.oom import OutOfMemory
from runtime.apply.cgroup.usage import usage
from runtime.errors import StateFault, UsageFault
from runtime.jsonlite import dumps
from runtime.kernel import pidfd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.apply.cgroup import Cgroup
    from runtime.cli.context import Context

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 0.000001, "ns": 0.000000001}


def events(context: Context) -> int:
    """Print one line of JSON an event, until the container ends."""
    pause = seconds(context.values.text("interval", "5s"))
    state = api.state(context.root, context.container_id)
    process = pidfd.open_process(state.pid, state.start_time)
    if process is None:
        raise StateFault(f"container with id {context.container_id} is not running")
    group = from_paths(state.cgroup)
    try:
        if context.values.flag("stats"):
            _show("stats", state.id, group)
        else:
            _watch(state.id, group, process, pause)
    finally:
        os.close(process)
    return 0


def _show(kind: str, container_id: str, group: Cgroup | None = None) -> None:
    event = {"type": kind, "id": container_id}
    sys.stdout.write(dumps(event | ({"data": usage(group)} if group is not None else {})) + "\n")
    sys.stdout.flush()


def _watch(container_id: str, group: Cgroup, process: int, pause: float) -> None:
    memory = OutOfMemory(group)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    if memory.fd >= 0:
        poll.register(memory.fd, memory.events)
    due = monotonic() + pause
    try:
        while True:
            ready = dict(poll.poll(min(max(0.0, due - monotonic()) * 1000, pidfd.LONGEST_MS)))
            if memory.fd in ready and memory.happened():
                _show("oom", container_id)
            if process in ready:
                return
            if monotonic() >= due:
                due = monotonic() + pause
                _show("stats", container_id, group)
    finally:
        memory.close()


def seconds(text: str) -> float:
    """Give the seconds of a duration such as "5s", "1m30s" or "100ms"; raise UsageFault for anything else."""
    total, rest = 0.0, text
    while rest:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(digits) :]
        unit = rest[: len(rest) - len(rest.lstrip("hmsun"))]
        rest = rest[len(unit) :]
        if unit not in _UNITS or not digits.replace(".", "", 1).isdigit():
            raise UsageFault(f'invalid value "{text}" for flag -interval: it is a duration such as 5s')
        total += float(digits) * _UNITS[unit]
    if total <= 0:
        raise UsageFault("duration interval must be greater than 0")
    return total
