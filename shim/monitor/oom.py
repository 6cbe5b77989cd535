"""Tell whether the kernel killed something in a container's memory cgroup, in cgroup v1 and v2."""

from __future__ import annotations

import contextlib
import functools
import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.monitor.keeper import Rest
    from shim.monitor.rest import Luggage
    from shim.reactor import Reactor


class OomWatch:
    """The kernel's count of OOM kills in one cgroup, and a call whenever it grows.

    The cgroup outlives the container's processes until `delete`, so the count can still be read after the end of init.
    """

    __slots__ = ("_event_fd", "_file_fd", "_last", "_on_oom", "_reactor")

    def __init__(self, reactor: Reactor, on_oom: Callable[[int], None]) -> None:
        """Watch nothing yet."""
        self._reactor = reactor
        self._on_oom = on_oom
        self._event_fd = self._file_fd = -1
        self._last = 0

    def watch(self, pid: int) -> None:
        """Look up the cgroup of the process `pid`; where there is none to watch, nothing is ever counted."""
        found = memory_cgroup(pid)
        if found is None:
            return
        version, folder = found
        with contextlib.suppress(OSError):
            if version == 1:
                self._watch_v1(folder)
            else:
                self._watch_v2(folder)
            self._last = self.count()

    def _watch_v1(self, folder: str) -> None:
        self._file_fd = os.open(f"{folder}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        self._event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        control = os.open(f"{folder}/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(control, f"{self._event_fd} {self._file_fd}".encode())
        finally:
            os.close(control)
        self._reactor.watch(self._event_fd, select.EPOLLIN, self._changed)

    def _watch_v2(self, folder: str) -> None:
        self._file_fd = os.open(f"{folder}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        self._reactor.watch(self._file_fd, select.EPOLLPRI, self._changed)

    def rest(self, luggage: Luggage) -> list[int]:
        """Hand over to the keeper."""
        version_1 = self._event_fd >= 0
        file = luggage.add(self._file_fd, 0 if version_1 else select.EPOLLPRI)
        return [file, luggage.add(self._event_fd, select.EPOLLIN), self._last]

    def wake(self, left: list[int], rest: Rest) -> None:
        """Take over from the keeper."""
        self._file_fd, self._event_fd, self._last = rest.fd(left[0]), rest.fd(left[1]), left[2]
        if self._event_fd >= 0:
            self._reactor.watch(self._event_fd, select.EPOLLIN, self._changed)
        elif self._file_fd >= 0:
            self._reactor.watch(self._file_fd, select.EPOLLPRI, self._changed)

    def _changed(self, _events: int) -> None:
        count = self.count()
        if self._event_fd >= 0:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._event_fd)
            count = max(count, self._last + 1)  # v1 tells before it counts
        if count > self._last:
            self._last = count
            self._on_oom(count)

    def count(self) -> int:
        """Give the kills so far; 0 when they cannot be read."""
        if self._file_fd >= 0:
            with contextlib.suppress(OSError, ValueError):
                for line in os.pread(self._file_fd, 4096, 0).splitlines():
                    if line.startswith(b"oom_kill "):
                        return int(line.split()[1])
        return 0

    def close(self) -> None:
        """Stop watching; a second call does nothing."""
        for fd in (self._event_fd, self._file_fd):
            if fd >= 0:
                self._reactor.unwatch(fd)
                os.close(fd)
        self._event_fd = self._file_fd = -1


@functools.lru_cache(maxsize=1)
def _hierarchies() -> tuple[tuple[str, str], tuple[str, str]]:
    """Give (mount point, root) of the v1 memory hierarchy and of the unified one; empty when there is none (proc(5))."""
    first = second = ("", "")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            head, _, tail = line.partition(" - ")
            fields, rest = head.split(), tail.split()
            if rest[0] == "cgroup" and "memory" in rest[-1].split(","):
                first = (fields[4], fields[3])
            elif rest[0] == "cgroup2" and not second[0]:
                second = (fields[4], fields[3])
    return first, second


def memory_cgroup(pid: int) -> tuple[int, str] | None:
    """Give the version and the directory of the cgroup that bounds the memory of `pid`; None when it cannot be known."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
        first, second = _hierarchies()
    except OSError:
        return None
    for _number, controllers, path in lines:
        version = 1 if "memory" in controllers.split(",") else 2
        mounted, root = first if version == 1 else second
        if (version == 1 or (not controllers and not first[0])) and mounted:
            below = path.removeprefix(root) if root != "/" else path
            return version, f"{mounted}/{below.strip('/')}"
    return None
