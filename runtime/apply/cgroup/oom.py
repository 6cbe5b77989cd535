"""Notice that a cgroup runs out of memory: an eventfd on v1 (memory.oom_control), a pollable file on v2 (memory.events)."""

from __future__ import annotations

import os
import select

from runtime.apply.cgroup import files
from runtime.plan.cgroup import UNIFIED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.apply.cgroup.group import Cgroup


def killed(group: Cgroup) -> bool:
    """Tell whether the kernel has ended a process of the cgroup because there was no memory for it."""
    legacy, unified = group.directory("memory"), group.directory(UNIFIED)
    for directory, file in ((legacy, "memory.oom_control"), (unified, "memory.events")):
        try:
            if directory is not None and files.keyed(files.read(directory, file), "oom_kill"):
                return True
        except OSError:
            continue
    return False


class OutOfMemory:
    """Something to poll: `fd` for `events`, and `happened` after it; -1 where nothing can be known."""

    def __init__(self, group: Cgroup) -> None:
        self._directory = ""
        self._unified = False
        self.fd = -1
        self.events = select.POLLIN
        legacy, unified = group.directory("memory"), group.directory(UNIFIED)
        if legacy is not None:
            self._directory = legacy
            self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            control = os.open(f"{legacy}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                files.write(legacy, "cgroup.event_control", f"{self.fd} {control}")
            finally:
                os.close(control)
        elif unified is not None and os.path.exists(f"{unified}/memory.events"):
            self._directory, self._unified = unified, True
            self.fd = os.open(f"{unified}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
            self.events = select.POLLPRI
        self._seen = self._count()

    def _count(self) -> int:
        if not self._unified:
            return 0
        try:
            return files.keyed(files.read(self._directory, "memory.events"), "oom")
        except OSError:
            return 0

    def happened(self) -> bool:
        """Tell whether memory ran out since the last call; the end of the cgroup makes the descriptor ready, too."""
        if self._unified:
            before, self._seen = self._seen, self._count()
            return self._seen > before
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return False
        return os.path.exists(f"{self._directory}/memory.oom_control")

    def close(self) -> None:
        """Stop watching."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
