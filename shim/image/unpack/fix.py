"""Finish a layer with what only the layers below it know.

A tar may name usr/lib/x without usr/lib: the directory then looks as it does below, instead of hiding the owner and mode
it has there. It may also hold a hard link to a file of a lower layer: overlayfs cannot express that, so the file is copied
up, as every peer does.

The layers below are mounted read-only (overlayfs decides about whiteouts, nobody else), in a namespace of this job.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from runtime.kernel import mount
from shim.errors import FailedPrecondition
from shim.image.unpack import sandbox
from shim.image.unpack.tar import shown

LOWER, LAYER = b"/lower", b"/layer"
_MAX_LINKS = 40


def run(params: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Finish the layer params["layer"]; both it and params["lower"] (topmost first) are names in params["layers"].

    Gives what the copies cost and `lost`, why the layer's tar cannot be made again. Raises FailedPrecondition or OSError.
    """
    del fds
    sandbox.isolate()
    _mount(params["layers"], params["scratch"], params["layer"], params["lower"])
    fixer = _Fixer([os.fsencode(path) for path in params["implicit"]])
    try:
        fixer.directories()
        for path, target in params["links"]:
            fixer.link(os.fsencode(path), os.fsencode(target))
    except FailedPrecondition as error:
        raise FailedPrecondition(f"{params['what']}: {error}") from error
    return {"bytes": fixer.bytes, "inodes": fixer.inodes, "lost": fixer.lost}


def _mount(layers: str, scratch: str, layer: str, lower: list[str]) -> None:
    os.chdir(layers)  # names relative to here keep the options of 100 layers within a page
    mount.mount("tmpfs", scratch, "tmpfs", 0, "mode=0700,size=64k")
    for name in (LOWER, LAYER):
        os.mkdir(scratch + os.fsdecode(name))
    if len(lower) == 1:
        sandbox.clone(lower[0], scratch + "/lower", read_only=True)
    else:
        mount.mount("overlay", scratch + "/lower", "overlay", mount.MS_RDONLY, "lowerdir=" + ":".join(lower))
    sandbox.clone(layer, scratch + "/layer")
    sandbox.pivot(scratch)
    os.umask(0)


class _Fixer:
    def __init__(self, implicit: list[bytes]) -> None:
        self._implicit = sorted(implicit)
        self._copies: dict[bytes, bytes] = {}
        self.bytes = 0
        self.inodes = 0
        self.lost = ""

    def directories(self) -> None:
        """Give every implicit directory what it has below, parents first."""
        while self._implicit:
            path = self._implicit.pop(0)
            below = _lower_path(path)
            mode = _mode(LOWER + below)
            if stat.S_ISDIR(mode) and below == path:
                _copy_attributes(LOWER + path, LAYER + path)
            elif stat.S_ISDIR(mode):
                self._move(path, below)

    def _move(self, path: bytes, target: bytes) -> None:
        """Put what stands below `path` where the lower layers' symbolic link leads."""
        self._merge(LAYER + path, LAYER + target)
        self._implicit = sorted(target + name[len(path) :] if name.startswith(path + b"/") else name for name in self._implicit)
        self.lost = f"{shown(path)} is a symbolic link in a lower layer"

    def _merge(self, source: bytes, target: bytes) -> None:
        self._make(target[len(LAYER) :])
        for name in os.listdir(source):
            old, new = source + b"/" + name, target + b"/" + name
            if stat.S_ISDIR(_mode(old)) and stat.S_ISDIR(_mode(new)):
                self._merge(old, new)
            elif not _mode(new):
                os.rename(old, new)
            else:
                raise FailedPrecondition(f"{shown(name)} is twice in the layer, once through a symbolic link of a lower layer")
        os.rmdir(source)

    def _make(self, path: bytes) -> None:
        current = b""
        for part in path.split(b"/")[1:]:
            current += b"/" + part
            if not _mode(LAYER + current):
                os.mkdir(LAYER + current, 0o755)
                self.inodes += 1
                if stat.S_ISDIR(_mode(LOWER + current)):
                    _copy_attributes(LOWER + current, LAYER + current)

    def link(self, path: bytes, target: bytes) -> None:
        """Make the hard link `path` to `target`, copying a file of a lower layer up."""
        if parent := path.rpartition(b"/")[0]:
            path = _lower_path(parent) + path[len(parent) :] if not _mode(LAYER + parent) else path
        folder = LAYER + path.rpartition(b"/")[0]
        before = os.stat(folder)
        self._link(path, target)
        os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _link(self, path: bytes, target: bytes) -> None:
        copy = self._copies.get(target, target)
        status = _status(LAYER + copy)
        if status is not None and not (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0):
            os.link(LAYER + copy, LAYER + path, follow_symlinks=False)
            return
        parent, _, base = target.rpartition(b"/")
        below = LOWER + _lower_path(parent) + b"/" + base
        mode = _mode(below) if status is None else 0
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise FailedPrecondition(f"{shown(path)} is a hard link to {shown(target)}, which no layer below has as a file")
        self._copy(below, LAYER + path, mode)
        self._copies[target] = path

    def _copy(self, source: bytes, target: bytes, mode: int) -> None:
        self.inodes += 1
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(source), target)
            status = os.lstat(source)
            os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
            return
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        writing = -1
        try:
            writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            # sendfile(2), because copy_file_range(2) refuses to cross from overlayfs, which merges the layers below
            while count := os.sendfile(writing, reading, None, 1 << 24):
                self.bytes += count
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)
        _copy_attributes(source, target)


def _lower_path(path: bytes) -> bytes:
    """Resolve `path` in the layers below, all links inside their root; what is missing is kept as it is."""
    queue, current, followed = list(reversed([part for part in path.split(b"/") if part])), b"", 0
    while queue:
        part = queue.pop()
        if part == b"..":
            current = current.rpartition(b"/")[0]
            continue
        step = current + b"/" + part
        if stat.S_ISLNK(_mode(LOWER + step)):
            followed += 1
            if followed > _MAX_LINKS:
                raise FailedPrecondition(f"{shown(path)} leads through more than {_MAX_LINKS} symbolic links")
            target = os.readlink(LOWER + step)
            current = b"" if target.startswith(b"/") else current
            queue.extend(reversed([name for name in target.split(b"/") if name not in (b"", b".")]))
        else:
            current = step
    return current


def _copy_attributes(source: bytes, target: bytes) -> None:
    status = os.lstat(source)
    os.chown(target, status.st_uid, status.st_gid)
    for name in os.listxattr(source, follow_symlinks=False):
        if name.startswith(("user.", "security.capability", "system.posix_acl")):
            try:
                os.setxattr(target, name, os.getxattr(source, name))
            except OSError as error:
                if error.errno not in {errno.ENOTSUP, errno.EPERM}:
                    raise
    os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _status(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _mode(path: bytes) -> int:
    status = _status(path)
    return 0 if status is None else status.st_mode
