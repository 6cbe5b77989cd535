"""Give a container's v2 cgroup to its user, so that it can divide it further (config-linux.md "Cgroup ownership")."""

from __future__ import annotations

import os

from runtime.errors import CgroupFault
from runtime.plan.cgroup import UNIFIED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.apply.cgroup import Cgroup

DELEGATE = "/sys/kernel/cgroup/delegate"
"""Where the kernel lists the files that a user may have without reaching beyond the cgroup (cgroups(7))."""
_FILES = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")
"""The same where it does not."""


def give(cgroup: Cgroup, pid: int, uid: int) -> None:
    """Let `uid`, as the process `pid` counts, own the cgroup and the files in it that can be delegated; raise CgroupFault.

    Nothing is done where v1 limits the container as well, which cannot be delegated safely, or for an id that is not mapped.
    A caller without privileges who may not do it leaves it.
    """
    directory = cgroup.directory(UNIFIED)
    owner = _on_host(pid, uid)
    if directory is None or owner < 0 or cgroup.layout.kind != "v2":
        return
    try:
        os.chown(directory, owner, -1)
        for name in _delegated():
            try:
                os.chown(f"{directory}/{name}", owner, -1)
            except FileNotFoundError:
                continue
    except PermissionError as error:
        if not cgroup.spares:
            raise CgroupFault.from_os(error, "give the cgroup to the container's user", path=directory) from error


def _on_host(pid: int, uid: int) -> int:
    """Give the id outside of one of a process's ids; -1 where it has none (user_namespaces(7)), or the process is gone."""
    try:
        with open(f"/proc/{pid}/uid_map", encoding="ascii") as lines:
            ranges = [tuple(map(int, line.split())) for line in lines]
    except (FileNotFoundError, ProcessLookupError):
        return -1  # it will be told why
    for inside, outside, count in ranges:
        if inside <= uid < inside + count:
            return outside + uid - inside
    return -1


def _delegated() -> tuple[str, ...]:
    try:
        with open(DELEGATE, encoding="ascii") as lines:
            return tuple(lines.read().split())
    except FileNotFoundError:
        return _FILES
