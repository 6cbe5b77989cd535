"""mount(2), umount2(2), pivot_root(2), and open_tree, move_mount, fsopen, fsconfig, fsmount and mount_setattr.

Everything Wherry mounts is made as a detached mount first, given its attributes, and attached last with move_mount(2) to a
descriptor: no path is looked up twice, and no mount is ever visible with the wrong attributes.
"""

from __future__ import annotations

import os

from runtime.kernel.libc import AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE, function, system_call, u64

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000

MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_FSOPEN_CLOEXEC = 0x1
_FSMOUNT_CLOEXEC = 0x1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_SET_FD = 5
_FSCONFIG_CMD_CREATE = 6

_mount = function("mount", "ssslp")
_umount2 = function("umount2", "si")
_pivot_root = system_call("pivot_root", "ss")
_open_tree = system_call("open_tree", "lsl")
_move_mount = system_call("move_mount", "lslsl")
_mount_setattr = system_call("mount_setattr", "lslpl")
_fsopen = system_call("fsopen", "sl")
_fsconfig = system_call("fsconfig", "llspl")
_fsmount = system_call("fsmount", "lll")


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    """Mount by path, the old way; only where the descriptor calls cannot do it."""
    _mount(os.fsencode(source), os.fsencode(target), fstype.encode(), flags, os.fsencode(data) or None, path=target)


def umount2(target: str, flags: int = MNT_DETACH) -> None:
    """Unmount what lies on `target`."""
    _umount2(os.fsencode(target), flags, path=target)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root of this mount namespace and move the old one to `put_old`."""
    _pivot_root(os.fsencode(new_root), os.fsencode(put_old), path=new_root)


def open_tree(path: str, *, dir_fd: int = AT_FDCWD, recursive: bool = False, follow: bool = True) -> int:
    """Clone the mount at `path` (all below it too when `recursive`) and give the detached copy, close-on-exec.

    An empty path clones what `dir_fd` itself refers to.
    """
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (0 if follow else 0x100)
    flags |= AT_RECURSIVE if recursive else 0
    flags |= 0 if path else AT_EMPTY_PATH
    return _open_tree(dir_fd, os.fsencode(path), flags, path=path)


def move_mount(mount_fd: int, target_fd: int, *, path: str | None = None) -> None:
    """Attach the detached mount `mount_fd` on what `target_fd` refers to; `path` only names it in an error."""
    _move_mount(mount_fd, b"", target_fd, b"", _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH, path=path)


class Attributes:
    """What mount_setattr(2) is asked for: bits to set, bits to clear, a propagation (0: unchanged) and a user namespace."""

    __slots__ = ("clear", "propagation", "set", "userns_fd")

    def __init__(self, set_: int = 0, clear: int = 0, propagation: int = 0, userns_fd: int = 0) -> None:
        self.set = set_
        self.clear = clear
        self.propagation = propagation
        self.userns_fd = userns_fd


def mount_setattr(mount_fd: int, attributes: Attributes, *, recursive: bool = False, path: str | None = None) -> None:
    """Change the attributes of the mount `mount_fd` refers to, and of all below it when `recursive`."""
    structure = u64(attributes.set, attributes.clear, attributes.propagation, attributes.userns_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _mount_setattr(mount_fd, b"", flags, structure, len(structure), path=path)


def fsopen(fstype: str) -> int:
    """Open a configuration context for a new file system; ENODEV when the kernel does not know the type."""
    return _fsopen(fstype.encode(), _FSOPEN_CLOEXEC, path=fstype)


def fsconfig_string(context_fd: int, key: str, value: str) -> None:
    """Give the context one `key=value`."""
    _fsconfig(context_fd, _FSCONFIG_SET_STRING, key.encode(), os.fsencode(value) + b"\0", 0, path=value)


def fsconfig_flag(context_fd: int, key: str) -> None:
    """Give the context one option without a value."""
    _fsconfig(context_fd, _FSCONFIG_SET_FLAG, key.encode(), None, 0, path=key)


def fsconfig_fd(context_fd: int, key: str, fd: int) -> None:
    """Give the context one option whose value is a descriptor."""
    _fsconfig(context_fd, _FSCONFIG_SET_FD, key.encode(), None, fd, path=key)


def fsmount(context_fd: int, attributes: int = 0) -> int:
    """Create the file system of the context and give a detached mount of it, close-on-exec."""
    _fsconfig(context_fd, _FSCONFIG_CMD_CREATE, None, None, 0)
    return _fsmount(context_fd, _FSMOUNT_CLOEXEC, attributes)


def messages(context_fd: int) -> str:
    """Give what the kernel has to say about the context (fsopen(2): read), one line; empty when it says nothing."""
    lines: list[str] = []
    while True:
        try:
            line = os.read(context_fd, 1024)
        except OSError:
            return "; ".join(lines)
        if not line:
            return "; ".join(lines)
        lines.append(line.decode(errors="replace").strip().removeprefix("e ").removeprefix("w "))
