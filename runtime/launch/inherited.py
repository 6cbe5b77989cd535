"""What stage1 and init have from their creator: plain memory and descriptors, by fork(2)."""

from __future__ import annotations

import gc
import os

from runtime.errors import RuntimeFault
from runtime.kernel.execute import close_range
from runtime.kernel.prctl import set_dumpable
from runtime.kernel.spawn import default_signals
from runtime.launch.preload import forbid_imports

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from runtime.apply.cgroup import Cgroup
    from runtime.launch.protocol import Link
    from runtime.plan.launch import LaunchPlan
    from runtime.privilege import Standing


class Inherited:
    """Everything stage1 and init need. Descriptors are the creator's, made before the first fork."""

    __slots__ = (
        "cgroup",
        "console_socket",
        "filter",
        "gate",
        "link",
        "namespace_fds",
        "node_clones",
        "placed",
        "plan",
        "preserve_fds",
        "root_mount",
        "sources",
        "standing",
        "stdio",
        "task_fd",
        "unified_fd",
        "user_fd",
    )

    def __init__(self, plan: LaunchPlan, link: Link, cgroup: Cgroup, gate: _socket.socket, standing: Standing) -> None:
        self.plan = plan
        self.link = link
        self.cgroup = cgroup
        self.gate = gate
        self.standing = standing
        self.namespace_fds: list[tuple[str, int]] = []
        self.user_fd = -1
        self.root_mount = -1
        self.sources: dict[int, int] = {}
        self.node_clones: dict[str, int] = {}
        self.stdio = plan.request.stdio
        self.console_socket = plan.request.console_socket
        self.preserve_fds = plan.request.preserve_fds
        self.task_fd = -1
        self.unified_fd = -1
        self.placed = False
        self.filter: bytes | None = None
        """The CONFINED payload, when there is no creator to be asked for it."""

    def staged(self) -> bool:
        """Tell whether stage1 is needed: nobody comes back from a user namespace, nor, as root of one, to the host's others."""
        return self.plan.namespaces.in_user_namespace() or self.standing.nested

    def descriptors(self) -> set[int]:
        """Give every descriptor the children need."""
        wanted = {0, 1, 2, self.link.socket.fileno(), self.gate.fileno(), self.root_mount, self.user_fd}
        wanted.update(fd for _, fd in self.namespace_fds)
        wanted.update(self.sources.values())
        wanted.update(self.node_clones.values())
        wanted.update(self.stdio or ())
        wanted.update(passed(self.preserve_fds))
        if self.console_socket is not None:
            wanted.add(self.console_socket)
        wanted.discard(-1)
        return wanted


def passed(count: int, first: int = 3) -> set[int]:
    """Give those of `count` descriptors from `first` on the caller has passed: all of ours are close-on-exec, none of his."""
    found = set()
    for fd in range(first, first + count):
        try:
            if os.get_inheritable(fd):
                found.add(fd)
        except OSError:
            continue
    return found


def check_passed(count: int) -> None:
    """Refuse to pass on descriptors that the caller has not opened."""
    for fd in range(3, 3 + count):  # ends at the first that is missing, however many are asked for
        if fd not in passed(1, fd):
            raise RuntimeFault(f"descriptor {fd} is to be preserved but is not open")


def close_others(wanted: set[int]) -> None:
    """Close every descriptor that is not wanted: a caller's pipe kept open by a waiting init would never end."""
    first = 0
    for fd in sorted(wanted):
        close_range(first, fd - 1)
        first = fd + 1
    close_range(first)


def settle(wanted: set[int]) -> int:
    """Begin a forked child: no traces, no foreign descriptors, default signals, no imports; give its own /proc/self/task.

    Dumpable is cleared before any namespace is joined, so that nothing in a container can trace this process or reach the
    interpreter and the descriptors through its /proc files. Collection is off: it could close a descriptor of the parent's
    objects whose number has been used again.
    """
    gc.disable()
    set_dumpable(dumpable=False)
    close_others(wanted)
    default_signals()
    forbid_imports()
    return os.open("/proc/self/task", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
