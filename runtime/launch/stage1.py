"""stage1: joins the cgroup and the namespaces, makes the new ones, forks init into them, and ends."""

from __future__ import annotations

import os

from runtime.apply.faults import Step
from runtime.errors import RuntimeFault
from runtime.kernel.fork import fork
from runtime.kernel.namespace import CLONE_NEWUSER, FLAGS, setns, unshare
from runtime.kernel.prctl import set_dumpable
from runtime.launch import protocol
from runtime.launch.guarded import guarded
from runtime.launch.inherited import settle
from runtime.launch.init import run as run_init

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from runtime.launch.inherited import Inherited
    from runtime.launch.protocol import Link


def run(inherited: Inherited) -> NoReturn:
    """Be stage1; never returns."""
    guarded(inherited.link, lambda: _stage1(inherited))


def _stage1(inherited: Inherited) -> None:
    task_fd = settle(inherited.descriptors())
    adjust_oom_score(inherited.plan.process.source.oom_score_adj)
    inherited.cgroup.join(os.getpid())
    enter_namespaces(inherited)
    pid = fork(task_fd)
    if pid == 0:
        os.close(task_fd)
        run_init(inherited)
    inherited.link.send(protocol.CHILD, str(pid).encode())


def adjust_oom_score(adjustment: int | None) -> None:
    """Write oom_score_adj; while still root of the host, because /proc/self belongs to it as long as traces are off."""
    if adjustment is None:
        return
    with Step("set oom_score_adj", "/proc/self/oom_score_adj"):
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(adjustment).encode())
        finally:
            os.close(fd)


def enter_namespaces(inherited: Inherited) -> None:
    """Join and make the namespaces of the plan.

    One that belongs to the host's user namespace must be joined before the container's is entered, one that belongs to the
    container's may need that first: who is refused before is tried again after.
    """
    plan = inherited.plan.namespaces
    later = []
    for kind, fd in inherited.namespace_fds:
        try:
            setns(fd, FLAGS[kind])
        except PermissionError:
            if not plan.in_user_namespace():
                raise
            later.append((kind, fd))
        except OSError as error:
            raise RuntimeFault.from_os(error, f"join the {kind} namespace") from error
    if inherited.user_fd >= 0:
        with Step("join the user namespace", plan.user_path):
            setns(inherited.user_fd, CLONE_NEWUSER)
    if plan.new_flags:
        with Step(f"make new namespaces ({', '.join(plan.new)})"):
            unshare(plan.new_flags)
    if plan.uid_map or plan.time_offsets:
        _ask_for_maps(inherited.link)
    for kind, fd in later:
        with Step(f"join the {kind} namespace"):
            setns(fd, FLAGS[kind])


def _ask_for_maps(link: Link) -> None:
    unprivileged = os.geteuid() != 0 and link.peer == "the rootless creator"
    if unprivileged:  # its creator may not write maps of a process that is not traceable
        set_dumpable(dumpable=True)
    link.send(protocol.MAP)
    link.receive(protocol.MAPPED)
    if unprivileged:
        set_dumpable(dumpable=False)
