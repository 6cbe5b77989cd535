"""Shut this process into one directory: a new mount namespace whose root it is, and a network namespace without links.

Afterwards no path, absolute, dot-dot or through a link, reaches anything else: there is nothing else. Devices, set-id bits
and programs in the directory are inert, because its mount says nodev, nosuid and noexec. For disposable jobs only: there
is no way back.
"""

from __future__ import annotations

import os

from runtime.kernel import mount, namespace
from shim.errors import Internal

_INERT = mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC


def enter(path: str, *, read_only: bool = False) -> None:
    """Make `path` the root of this process and of everything it can see; raise Internal naming the step."""
    isolate()
    try:
        clone(path, path, read_only=read_only)
        pivot(path)
    except OSError as error:
        raise Internal(f"the unpacker cannot be shut into {path}: {error}") from error
    os.umask(0)


def isolate() -> None:
    """Leave the host's mount and network namespaces; raise Internal."""
    try:
        namespace.unshare(namespace.CLONE_NEWNS | namespace.CLONE_NEWNET)
        mount.mount("none", "/", "", mount.MS_REC | mount.MS_PRIVATE)
    except OSError as error:
        raise Internal(f"the unpacker cannot leave the host's namespaces (it needs CAP_SYS_ADMIN): {error}") from error


def clone(source: str, target: str, *, read_only: bool = False) -> None:
    """Mount the directory `source` on `target`, inert; raise OSError."""
    fd = mount.open_tree(source)
    try:
        attributes = mount.Attributes(set_=_INERT | (mount.MOUNT_ATTR_RDONLY if read_only else 0))
        mount.mount_setattr(fd, attributes, path=source)
        place = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mount.move_mount(fd, place, path=target)
        finally:
            os.close(place)
    finally:
        os.close(fd)


def pivot(path: str) -> None:
    """Make the mount point `path` the root and let go of the old one (pivot_root(2), "pivot_root(".", ".")"); raise OSError."""
    os.chdir(path)
    mount.pivot_root(".", ".")
    mount.umount2(".", mount.MNT_DETACH)
    os.chdir("/")
