"""A pod's scope: with the systemd driver one delegated unit holds everything of a pod, and systemd is asked once a pod.

systemd keeps a scope as long as there are processes in it, so the monitor itself stands in it, in a cgroup beside those of the
containers. It leaves with the pod's end: who clears the pod's slice away then (kubelet does, with SIGKILL) does not meet it.
"""

from __future__ import annotations

import contextlib
import os

from runtime.apply.cgroup import detect
from runtime.apply.cgroup.files import write
from runtime.plan.cgroup import UNIFIED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.plan.cgroup import Layout

OWN = "monitor"
"""The monitor's cgroup in the scope: v2 lets a cgroup hold processes or hand controllers down."""


def home(layout: Layout) -> tuple[str, ...]:
    """Give the directories of the caller's cgroups, to return to."""
    return tuple(one.mount.rstrip("/") + one.own.rstrip("/") for one in layout.hierarchies)


def enter(scope: str, pids: list[int]) -> dict[str, Any]:
    """Have systemd start the scope "slice:prefix:name" around the monitor's processes, and move them aside in it.

    For a short-lived child: libsystemd is loaded here, and need not stay in a monitor's memory. Raises RuntimeFault.
    """
    from runtime.apply.cgroup.manager import start_scope  # noqa: PLC0415 - the monitor itself does without
    from runtime.apply.cgroup.scope import unit_paths  # noqa: PLC0415 - the monitor itself does without
    from runtime.plan.systemd import scope_properties, unit_of  # noqa: PLC0415 - the monitor itself does without

    unit = unit_of(scope, "")
    layout = detect()
    start_scope(unit, scope_properties(unit, f"pod {unit.name}", pids, v2=layout.kind == "v2"))
    unified = dict(unit_paths(unit, layout)).get(UNIFIED)
    if unified is not None and layout.kind == "v2":
        os.mkdir(f"{unified}/{OWN}", 0o755)
        for pid in pids:
            write(f"{unified}/{OWN}", "cgroup.procs", str(pid))
    return {}


def leave(before: tuple[str, ...], pids: tuple[int, ...]) -> None:
    """Bring the monitor's processes back to where they were before; a cgroup that is gone since is no error."""
    for directory in before:
        for pid in pids:
            with contextlib.suppress(OSError):
                write(directory, "cgroup.procs", str(pid))
