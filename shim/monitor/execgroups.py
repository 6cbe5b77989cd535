"""A cgroup for each exec, below the container's, in one hierarchy: what the exec left behind is found there and killed."""

from __future__ import annotations

import contextlib
import os
import stat

from runtime.apply.cgroup import from_paths
from runtime.plan.cgroup import UNIFIED, parse_layout
from shim.monitor import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.spec.lasting import Pairs

_ROUNDS = 16


class ExecGroups:
    """The cgroups of one container's execs; `paths` is the container's own directory in each hierarchy."""

    def __init__(self, paths: Pairs = ()) -> None:
        self.paths = paths

    def find(self, name: str) -> tuple[str, str] | None:
        """Give the hierarchy and the directory: where whole groups are killed best; None where the container has no cgroup."""
        paths = dict(self.paths)
        key = next((key for key in ("freezer", UNIFIED) if key in paths), None)
        return None if key is None else (key, f"{paths[key]}/{name}")

    def make(self, name: str) -> str | None:
        """Make it and give its hierarchy."""
        found = self.find(name)
        if found is None:
            return None
        os.mkdir(found[1])
        return found[0]

    def remove(self, name: str) -> None:
        """Remove it; while the process left others behind it stays, until the container is deleted."""
        found = self.find(name)
        if found is not None:
            with contextlib.suppress(OSError):
                os.rmdir(found[1])

    def adopt(self, name: str, pid: int, pipes: frozenset[str]) -> None:
        """Move a process that runs already into it, with what it has forked by now, until no new one is seen.

        A descendant that has lost its parent in this moment is known by the `pipes` it was given.
        """
        found = self.find(name)
        if found is None:
            return
        group = from_paths((found,))
        moved: set[int] = set()
        for _ in range(_ROUNDS):
            fresh = (tree.family(pid) | self._holders(pipes)) - moved
            if not fresh:
                return
            moved |= fresh
            for one in fresh:
                with contextlib.suppress(Exception):  # it has ended
                    group.join(one)

    def _holders(self, pipes: frozenset[str]) -> set[int]:
        return {one for one in from_paths(self.paths).pids() if any(_link(one, fd) in pipes for fd in range(3))}

    def kill(self, name: str, pid: int) -> None:
        """Kill a process, if it is known, and what it left: the cgroup holds also those who left the session."""
        if pid:
            tree.kill_tree(pid)
        found = self.find(name)
        if found is not None:
            from_paths((found,)).kill_all()


def pipes_of(stdio: tuple[int, int, int]) -> frozenset[str]:
    """Give the names (proc_pid_fd(5)) of those descriptors that are pipes: nobody else has them."""
    return frozenset(f"pipe:[{os.fstat(fd).st_ino}]" for fd in stdio if stat.S_ISFIFO(os.fstat(fd).st_mode))


def _link(pid: int, fd: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return ""


def paths_of(pid: int) -> Pairs:
    """Give the directory of a process's cgroup in each hierarchy, without those where it is in everybody's root."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            table = mounts.read()
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as own:
            layout = parse_layout(table, own.read(), "")
    except OSError:
        return ()
    return tuple((one.key, one.mount + one.own) for one in layout.hierarchies if one.own != "/")


def exec_option(usage: str, key: str, name: str) -> list[str]:
    """Give the option that makes a runtime start an exec in its cgroup, as far as its usage text tells that it has one.

    runc names the controller of a v1 hierarchy, crun can only be told of a path in every one; both know a path in v2.
    """
    if "--cgroup" not in usage:
        return []
    if key == UNIFIED:
        return ["--cgroup", name]
    return ["--cgroup", f"{key}:{name}"] if "<controller>" in usage else []
