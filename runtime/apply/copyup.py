"""tmpcopyup: fill a new tmpfs with what lies below its destination."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.apply.paths import RootPaths


def copy_up(paths: RootPaths, destination: str, tmpfs_fd: int) -> None:
    """Copy files, directories, links, modes, owners and extended attributes of `destination` to the root of the tmpfs."""
    try:
        source = paths.open(destination, os.O_RDONLY | os.O_DIRECTORY, plain=False)
    except FileNotFoundError:
        return
    target = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tmpfs_fd)
    try:
        copy_folder(source, target)
    finally:
        os.close(source)
        os.close(target)


def copy_folder(source: int, target: int) -> None:
    """Copy what is in the directory `source` into the empty directory `target`, both descriptors; raise OSError."""
    _copy_meta(source, target)
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below, above = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=target)
            try:
                copy_folder(below, above)
            finally:
                os.close(below)
                os.close(above)
        elif stat.S_ISREG(status.st_mode):
            _copy_file(source, target, name)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)


def _copy_file(source: int, target: int, name: str) -> None:
    below = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    above = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
    try:
        while os.sendfile(above, below, None, 1 << 20):
            pass
        _copy_meta(below, above)
    finally:
        os.close(below)
        os.close(above)


def _copy_meta(source: int, target: int) -> None:
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for attribute in os.listxattr(source):
        if attribute.startswith(("user.", "security.capability")):
            try:
                os.setxattr(target, attribute, os.getxattr(source, attribute))
            except OSError:
                continue  # tmpfs takes user attributes only since Linux 6.6
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
