"""openat2(2) and fstatfs(2): paths resolved inside a root, and the kind of file system a descriptor lies on."""

from __future__ import annotations

import os
import sys

from runtime.kernel.libc import AT_FDCWD, buffer, function, system_call, u64

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
DEVPTS_SUPER_MAGIC = 0x1CD1
OVERLAYFS_SUPER_MAGIC = 0x794C7630

_openat2 = system_call("openat2", "lspl")
_fstatfs = function("fstatfs", "ip")

_RETRIES = 32  # openat2(2): EAGAIN when a rename races with the lookup of ".."


def openat2(dir_fd: int, path: str, flags: int, *, mode: int = 0, resolve: int = RESOLVE_IN_ROOT) -> int:
    """Open `path` with `dir_fd` as its root (or as `resolve` says) and give a close-on-exec descriptor."""
    how = u64(flags | os.O_CLOEXEC, mode, resolve)
    encoded = os.fsencode(path)
    for attempt in range(_RETRIES):
        try:
            return _openat2(dir_fd, encoded, how, len(how), path=path)
        except BlockingIOError:
            if attempt == _RETRIES - 1:
                raise
    raise AssertionError


def fstatfs_type(fd: int) -> int:
    """Give f_type, the magic number of the file system `fd` lies on."""
    space = buffer(120)
    _fstatfs(fd, space)
    return int.from_bytes(space.raw[:8], sys.byteorder) & 0xFFFFFFFF


def open_path(path: str, *, follow: bool = True) -> int:
    """Give an O_PATH descriptor of `path` as this process sees it."""
    return os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))


__all__ = [
    "AT_FDCWD",
    "DEVPTS_SUPER_MAGIC",
    "OVERLAYFS_SUPER_MAGIC",
    "PROC_SUPER_MAGIC",
    "RESOLVE_BENEATH",
    "RESOLVE_IN_ROOT",
    "RESOLVE_NO_MAGICLINKS",
    "RESOLVE_NO_SYMLINKS",
    "RESOLVE_NO_XDEV",
    "SYSFS_MAGIC",
    "fstatfs_type",
    "open_path",
    "openat2",
]
