"""Enter namespaces: those of a container without a user namespace need one fork, those of one with it need two.

A PID or time namespace takes in only children of the process that makes or joins it, so somebody must fork inside. Without a
user namespace the creator itself does it and goes back at once. Entering a user namespace cannot be taken back, and the PID
namespace must belong to it, so stage1 does it then, forks init and ends.
"""

from __future__ import annotations

import os

from runtime.apply.faults import Step
from runtime.errors import RuntimeFault, SpecFault
from runtime.kernel.fork import fork_into
from runtime.kernel.namespace import CLONE_NEWUSER, FLAGS, setns, unshare
from runtime.kernel.prctl import set_dumpable
from runtime.launch import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.apply.cgroup import Cgroup
    from runtime.launch.inherited import Inherited
    from runtime.launch.protocol import Link

_MOST_CPUS = 1024
"""Bits of glibc's cpu_set_t; the kernel takes those it has (sched_setaffinity(2))."""
_NS_GET_PARENT = 0xB702
FOR_CHILDREN = ("pid", "time")


def fork_init(inherited: Inherited) -> int:
    """Fork with the plan's PID and time namespaces and come back from them; gives what fork(2) gives.

    The child is in the v2 cgroup when `inherited.placed` says so.
    """
    plan = inherited.plan.namespaces
    new = [kind for kind in plan.new if kind in FOR_CHILDREN]
    joined = [(kind, fd) for kind, fd in inherited.namespace_fds if kind in FOR_CHILDREN]
    own = [(kind, os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)) for kind in (*new, *dict(joined))]
    pid = -1
    try:
        join(joined)
        make(new)
        if plan.time_offsets:
            _write_offsets(plan.time_offsets)
        pid, inherited.placed = fork_into(inherited.unified_fd)
    finally:
        if pid:
            join(own)
        for _, fd in own:
            os.close(fd)
    return pid


def _write_offsets(offsets: str) -> None:
    with Step("write timens_offsets", "/proc/self/timens_offsets"):
        fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, offsets.encode())
        finally:
            os.close(fd)


def make(kinds: list[str]) -> None:
    """Make new namespaces of these types, all at once."""
    if kinds:
        with Step(f"make new namespaces ({', '.join(kinds)})"):
            unshare(sum(FLAGS[kind] for kind in kinds))


def join(namespaces: list[tuple[str, int]]) -> None:
    """Join namespaces by descriptor, in their order."""
    for kind, fd in namespaces:
        with Step(f"join the {kind} namespace"):
            setns(fd, FLAGS[kind])


def enter_as_init(inherited: Inherited) -> None:
    """Join and make the rest after `fork_init`, from inside the cgroup, which becomes the root of its namespace."""
    join([(kind, fd) for kind, fd in inherited.namespace_fds if kind not in FOR_CHILDREN])
    make([kind for kind in inherited.plan.namespaces.new if kind not in FOR_CHILDREN])


def enter_user_namespace(inherited: Inherited) -> list[tuple[str, int]]:
    """Join what can be joined, enter the user namespace, make the others; give what is to be joined once maps are written.

    A namespace of the host's user namespace must be joined before the container's is entered, one of the container's may need
    that first: who is refused before is tried again after.
    """
    plan = inherited.plan.namespaces
    later = []
    for kind, fd in inherited.namespace_fds:
        try:
            setns(fd, FLAGS[kind])
        except PermissionError:
            later.append((kind, fd))
        except OSError as error:
            raise RuntimeFault.from_os(error, f"join the {kind} namespace") from error
    if inherited.user_fd >= 0:
        with Step("join the user namespace", plan.user_path):
            judged = _maps_are_ours(inherited)
            setns(inherited.user_fd, CLONE_NEWUSER)
        if judged:
            _require_maps(inherited)
    make(list(plan.new))  # one call: the kernel makes the user namespace first, and the others belong to it
    return later


def _maps_are_ours(inherited: Inherited) -> bool:
    """Tell whether the document has mappings, and the map files inside will name ids of our namespace, as it does.

    They name ids of the namespace around, which need not be this process's (user_namespaces(7), ioctl_nsfs(2)).
    """
    linux = inherited.plan.spec.linux
    if not (linux.uid_mappings or linux.gid_mappings):
        return False
    from fcntl import ioctl

    around = ioctl(inherited.user_fd, _NS_GET_PARENT)
    try:
        return os.path.samestat(os.fstat(around), os.stat("/proc/self/ns/user"))
    finally:
        os.close(around)


def _require_maps(inherited: Inherited) -> None:
    """Refuse a document that says of a user namespace it names what is not so; raise SpecFault."""
    linux = inherited.plan.spec.linux
    for name, field, lines in (("uid_map", "uidMappings", linux.uid_mappings), ("gid_map", "gidMappings", linux.gid_mappings)):
        if not lines:
            continue
        with open(f"/proc/self/{name}", "rb") as file:
            found = sorted(tuple(map(int, line.split())) for line in file)
        if found != sorted((line.container_id, line.host_id, line.size) for line in lines):
            detail = "is not how the namespace that is named by its path is mapped: leave it out, or say the same"
            raise SpecFault(detail, pointer=f"/linux/{field}")


def enter_cgroup(cgroup: Cgroup, link: Link, *, placed: bool) -> None:
    """Enter the container's cgroup, by the creator's word to systemd where this process may not."""
    if not placed and cgroup.needs_placing():
        link.send(protocol.PLACE)
        link.receive(protocol.PLACED)
        return
    cgroup.enter(placed=placed)


def leave_affinity() -> None:
    """Run on every CPU the cgroup allows: the affinity of whoever called is not the container's."""
    if len(os.sched_getaffinity(0)) < (os.cpu_count() or 1):
        os.sched_setaffinity(0, range(_MOST_CPUS))


def run_on(cpus: str) -> None:
    """Run on these CPUs only, a list such as 0-3,7."""
    from runtime.spec.numbers import numbers

    with Step(f"set the CPU affinity {cpus}"):
        os.sched_setaffinity(0, numbers(cpus))


def adjust_oom_score(adjustment: int | None) -> None:
    """Write oom_score_adj; while still what the creator is, because /proc/self belongs to root as long as traces are off.

    A user's own process is traceable for that moment, before it enters anything.
    """
    if adjustment is None:
        return
    with Step("set oom_score_adj", "/proc/self/oom_score_adj"):
        set_dumpable(dumpable=os.geteuid() != 0)
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        set_dumpable(dumpable=False)
        try:
            os.write(fd, str(adjustment).encode())
        finally:
            os.close(fd)
