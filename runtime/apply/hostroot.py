"""The mounts of a container that shares the host's mount namespace: they are the host's, so they must be taken back."""

from __future__ import annotations

import os

from runtime.kernel.mount import MNT_DETACH, UMOUNT_NOFOLLOW, umount2


def count_mounts(path: str) -> int:
    """Give how many mounts lie on top of each other at `path`."""
    fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        wanted = (
            os.fsencode(path).replace(b"\\", b"\\134").replace(b" ", b"\\040").replace(b"\t", b"\\011").replace(b"\n", b"\\012")
        )
        return sum(line.split(b" ")[4] == wanted for line in file)


def take_back(path: str, kept: int) -> None:
    """Unmount what lies at `path` above the first `kept` mounts, each with all below it."""
    for _ in range(count_mounts(path) - kept):
        umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW)
