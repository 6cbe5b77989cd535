"""namespaces(7): unshare(2), setns(2), and the map files of user_namespaces(7)."""

from __future__ import annotations

from runtime.kernel.libc import function

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

FLAGS = {
    "user": CLONE_NEWUSER,
    "time": CLONE_NEWTIME,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "network": CLONE_NEWNET,
    "pid": CLONE_NEWPID,
    "cgroup": CLONE_NEWCGROUP,
    "mount": CLONE_NEWNS,
}
"""config.json's names of the eight namespaces."""
PROC_NAMES = {
    "user": "user",
    "time": "time",
    "ipc": "ipc",
    "uts": "uts",
    "network": "net",
    "pid": "pid",
    "cgroup": "cgroup",
    "mount": "mnt",
}
"""Their names below /proc/PID/ns."""

_unshare = function("unshare", "i")
_setns = function("setns", "ii")


def unshare(flags: int) -> None:
    """Leave the namespaces of `flags` for new ones; new pid and time namespaces take in only children."""
    _unshare(flags if flags < 1 << 31 else flags - (1 << 32))


def setns(fd: int, flags: int, *, path: str | None = None) -> None:
    """Join the namespace `fd`, or those `flags` names of the process a pidfd `fd` refers to (Linux 5.8), all or none."""
    _setns(fd, flags, path=path)
