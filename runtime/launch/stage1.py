"""stage1: enters a user namespace and the namespaces that belong to it, forks init into them, and ends."""

from __future__ import annotations

import os

from runtime.kernel.fork import fork
from runtime.kernel.prctl import set_dumpable
from runtime.launch import protocol
from runtime.launch.entering import adjust_oom_score, enter_cgroup, enter_user_namespace, join, leave_affinity
from runtime.launch.guarded import guarded
from runtime.launch.inherited import settle
from runtime.launch.init import run_forked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from runtime.launch.inherited import Inherited
    from runtime.launch.protocol import Link


def run(inherited: Inherited) -> NoReturn:
    """Be stage1; never returns."""
    guarded(inherited.link, lambda: _stage1(inherited))


def _stage1(inherited: Inherited) -> None:
    plan = inherited.plan
    task_fd = settle(inherited.descriptors())
    adjust_oom_score(plan.process.source.oom_score_adj)
    enter_cgroup(inherited.cgroup, inherited.link, placed=inherited.placed)
    leave_affinity()
    later = enter_user_namespace(inherited)
    if plan.namespaces.uid_map or plan.namespaces.time_offsets:
        _ask_for_maps(inherited.link, unprivileged=inherited.standing.user)
    join(later)
    pid = fork(task_fd)
    if pid == 0:
        os.close(task_fd)
        run_forked(inherited)
    inherited.link.send(protocol.CHILD, str(pid).encode())


def _ask_for_maps(link: Link, *, unprivileged: bool) -> None:
    if unprivileged:  # a creator without privilege may not write the maps of a process that is not traceable
        set_dumpable(dumpable=True)
    link.send(protocol.MAP)
    link.receive(protocol.MAPPED)
    if unprivileged:
        set_dumpable(dumpable=False)
