"""Turn tar entries into files below "/", which is the layer's directory: the caller has pivoted into it.

Nothing here defends against a path that leaves the directory, because none can; what is defended is that one layer means
the same as with the peers: symbolic links among parents are followed inside the root, whiteouts become overlayfs's
(character device 0/0, trusted.overlay.opaque; Documentation/filesystems/overlayfs), attributes are exact.

Missing parents are made and remembered as `implicit`: the lower layers, which may be unpacking at this moment, decide
what they look like. Hard links to files of lower layers are remembered as `links`. `fix` does both later.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from shim.errors import FailedPrecondition, ResourceExhausted
from shim.image.unpack import sparse, tar
from shim.image.unpack.remove import empty_directory
from shim.image.unpack.tar import Entry, TarReader, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.image.unpack.recipe import Recorder

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS = b".wh..wh."
MAX_LINKS = 40
"""Symbolic links followed while one parent is resolved (path_resolution(7))."""
MAX_PATH = 4095
ALLOCATION = 4096
MOST_HELD = 1 << 30
"""Bytes of memory that the names and lists of one layer may take until it is finished: a million directories need as much."""
_ITEM = 256
"""Bytes that Python needs for an item beside its contents."""
_KEPT_XATTRS = (b"user.", b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default")
_OVERLAY_XATTRS = b"user.overlay."


def components(name: bytes) -> list[bytes]:
    """Split a member's name, lexically cleaned; raise FailedPrecondition for one that climbs out of the root."""
    if len(name) > MAX_PATH or b"\0" in name:
        raise FailedPrecondition(f"tar member {shown(name)} has a name longer than {MAX_PATH} bytes, or a zero byte in it")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not parts:
                raise FailedPrecondition(f"tar member {shown(name)} leaves the root of the image")
            parts.pop()
        elif len(part) > 255:
            raise FailedPrecondition(f"tar member {shown(name)} has a component longer than 255 bytes")
        else:
            parts.append(part)
    return parts


class LayerWriter:
    """Writes the entries of one layer."""

    def __init__(self, reader: TarReader, recorder: Recorder) -> None:
        self._reader = reader
        self._recorder = recorder
        self._parents: dict[bytes, bytes] = {b"": b""}
        self._directories: dict[bytes, tuple[int, int]] = {}
        self._acls: list[tuple[bytes, bytes]] = []
        self._held = 0
        self.implicit: dict[bytes, None] = {}
        self.links: dict[bytes, bytes] = {}
        self.root: tuple[int, int, int] | None = None
        """Mode, uid and gid of the layer's "/", when it says."""
        self.bytes = 0
        self.inodes = 1
        self._kinds: dict[bytes, Callable[[Entry, bytes], None]] = {
            tar.REGULAR: self._file,
            tar.DIRECTORY: self._directory,
            tar.SYMLINK: self._symlink,
            tar.LINK: self._hard_link,
            tar.CHAR: self._node,
            tar.BLOCK_DEVICE: self._node,
            tar.FIFO: self._node,
        }

    def run(self) -> None:
        """Write all entries; raise FailedPrecondition, ResourceExhausted or OSError."""
        while (entry := self._reader.next()) is not None:
            try:
                self._one(entry)
            except OSError as error:
                raise _explained(error, entry) from error
        self._finish()

    def _one(self, entry: Entry) -> None:
        parts = components(entry.name)
        if not parts:
            self._root(entry)
            return
        parent, base = self._parent(parts), parts[-1]
        if base.startswith(WHITEOUT):
            self._whiteout(parent, base, entry)
            return
        path = parent + b"/" + base
        if self.links:
            self.links.pop(path, None)
        self._kinds[entry.kind](entry, path)

    def _root(self, entry: Entry) -> None:
        if entry.kind != tar.DIRECTORY:
            raise FailedPrecondition(f"tar member {shown(entry.name)} replaces the root of the image by something else")
        self.root = (entry.mode, entry.uid, entry.gid)
        os.chown(b"/", entry.uid, entry.gid)
        self._directories[b"/"] = (entry.mode, entry.mtime_ns)
        self._xattrs(b"/", entry)

    # Parents

    def _parent(self, parts: list[bytes]) -> bytes:
        lexical = b"/".join(parts[:-1])
        known = self._parents.get(lexical)
        if known is None:
            known = self._parents[lexical] = self._resolve(parts[:-1], create=True) or b""
            self._hold(len(lexical) + len(known))
        return known

    def _resolve(self, parts: list[bytes], *, create: bool) -> bytes | None:
        """Walk to a directory, following symbolic links inside the root; None when it is missing and not created."""
        queue, current, followed = list(reversed(parts)), b"", 0
        while queue:
            part = queue.pop()
            if part == b"..":
                current = current.rpartition(b"/")[0]
                continue
            path = current + b"/" + part
            mode = _mode(path)
            if stat.S_ISLNK(mode):
                followed += 1
                if followed > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(path)
                current = b"" if target.startswith(b"/") else current
                queue.extend(reversed([step for step in target.split(b"/") if step not in (b"", b".")]))
                continue
            if not stat.S_ISDIR(mode):
                if not create:
                    return None
                self._make_parent(path, mode)
            current = path
        return current

    def _make_parent(self, path: bytes, mode: int) -> None:
        if mode and not stat.S_ISCHR(mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if mode:  # a whiteout of this layer, and now something below the same name: the old content stays hidden
            os.unlink(path)
        os.mkdir(path, 0o755)
        self.inodes += 1
        if mode:
            _set_opaque(path)
        else:
            self.implicit[path] = None
        self._hold(len(path))

    # Kinds

    def _file(self, entry: Entry, path: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, entry.mode)
        except FileExistsError:
            self._replace(path)
            fd = os.open(path, flags, entry.mode)
        try:
            if entry.layout is not None:
                self._recorder.lost = f"{shown(path)} is a sparse file"
                sparse.restore(fd, entry.layout, self._reader.payload(entry.size))
            elif entry.size:
                self._content(entry.size, fd, path)
            if entry.uid or entry.gid:
                os.fchown(fd, entry.uid, entry.gid)
            if entry.mode & 0o7000:  # chown(2) and write(2) may clear the set-id bits
                os.fchmod(fd, entry.mode)
            if entry.xattrs:
                self._xattrs(path, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        self.inodes += 1
        self.bytes += -(-entry.size // ALLOCATION) * ALLOCATION

    def _content(self, size: int, fd: int, path: bytes) -> None:
        self._recorder.file(path[1:], size)
        for piece in self._reader.payload(size):
            written = os.write(fd, piece)
            while written < len(piece):
                written += os.write(fd, piece[written:])

    def _directory(self, entry: Entry, path: bytes) -> None:
        mode = _mode(path)
        if not stat.S_ISDIR(mode):
            whiteout = stat.S_ISCHR(mode)
            if mode:
                self._replace(path)
            os.mkdir(path, entry.mode & 0o777)
            self.inodes += 1
            if whiteout:
                _set_opaque(path)
        else:
            os.chmod(path, entry.mode & 0o777)
            self.implicit.pop(path, None)
        if entry.uid or entry.gid or mode:
            os.chown(path, entry.uid, entry.gid)
        self._parents[path[1:]] = path
        self._directories[path] = (entry.mode, entry.mtime_ns)
        self._hold(2 * len(path))
        if entry.xattrs:
            self._xattrs(path, entry)

    def _symlink(self, entry: Entry, path: bytes) -> None:
        if not entry.link or len(entry.link) > MAX_PATH:
            raise FailedPrecondition(f"tar member {shown(entry.name)} is a symbolic link without a usable target")
        try:
            os.symlink(entry.link, path)
        except FileExistsError:
            self._replace(path)
            os.symlink(entry.link, path)
        self._made(entry, path)

    def _node(self, entry: Entry, path: bytes) -> None:
        kind = {tar.CHAR: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}[entry.kind]
        if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
            raise FailedPrecondition(f"tar member {shown(entry.name)} has a device number out of range")
        device = os.makedev(entry.major, entry.minor)
        try:
            os.mknod(path, kind | entry.mode, device)
        except FileExistsError:
            self._replace(path)
            os.mknod(path, kind | entry.mode, device)
        self._made(entry, path)

    def _made(self, entry: Entry, path: bytes) -> None:
        self.inodes += 1
        if entry.uid or entry.gid:
            os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
            if entry.mode & 0o7000 and entry.kind != tar.SYMLINK:
                os.chmod(path, entry.mode)
        if entry.xattrs:
            self._xattrs(path, entry)
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)

    def _hard_link(self, entry: Entry, path: bytes) -> None:
        parts = components(entry.link)
        if not parts:
            raise FailedPrecondition(f"tar member {shown(entry.name)} is a hard link to the root of the image")
        parent = self._resolve(parts[:-1], create=False)
        target = (parent if parent is not None else b"/" + b"/".join(parts[:-1])) + b"/" + parts[-1]
        mode = _mode(target) if parent is not None else 0
        if stat.S_ISDIR(mode):
            raise FailedPrecondition(f"tar member {shown(entry.name)} is a hard link to a directory")
        if not mode:
            self._forget(path)
            self.links[path] = target
            self._hold(len(path) + len(target))
        elif target != path:
            self._forget(path)
            os.link(target, path, follow_symlinks=False)

    def _whiteout(self, parent: bytes, base: bytes, entry: Entry) -> None:
        if base == OPAQUE:
            _set_opaque(parent or b"/")
            return
        if base.startswith(AUFS):  # what aufs kept for itself; every peer ignores it
            return
        name = base[len(WHITEOUT) :]
        if name in (b"", b".", b".."):
            raise FailedPrecondition(f"tar member {shown(entry.name)} is a whiteout of nothing")
        path = parent + b"/" + name
        mode = _mode(path)
        if not mode:
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
            self.inodes += 1
        elif stat.S_ISDIR(mode):  # a whiteout hides what is below, never what its own layer holds
            _set_opaque(path)

    # Replacing and attributes

    def _forget(self, path: bytes) -> None:
        if _mode(path):
            self._replace(path)

    def _replace(self, path: bytes) -> None:
        """Remove what an earlier entry of this layer left at `path`."""
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            self._remove_directory(path)
        else:
            os.unlink(path)
        if stat.S_ISREG(status.st_mode) and status.st_size:
            self._recorder.lost = f"{shown(path)} is twice in the layer"
        if not stat.S_ISREG(status.st_mode):
            self._parents = {b"": b""}

    def _remove_directory(self, path: bytes) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            empty_directory(fd)
        finally:
            os.close(fd)
        os.rmdir(path)
        below = path + b"/"
        self._directories = {key: value for key, value in self._directories.items() if not (key + b"/").startswith(below)}
        self.implicit = {key: None for key in self.implicit if not (key + b"/").startswith(below)}
        self.links = {key: value for key, value in self.links.items() if not key.startswith(below)}
        self._recorder.lost = f"{shown(path)} is replaced within the layer"

    def _hold(self, size: int) -> None:
        """Count what is kept until the end; raise ResourceExhausted where a small layer would take all of the node's memory."""
        self._held += size + _ITEM
        if self._held > MOST_HELD:
            limit = MOST_HELD >> 20
            raise ResourceExhausted(f"the layer's names and access lists take more than {limit} MiB: it looks like a bomb")

    def _xattrs(self, path: bytes, entry: Entry) -> None:
        for name, value in entry.xattrs:
            if not name.startswith(_KEPT_XATTRS) or name.startswith(_OVERLAY_XATTRS):
                continue  # trusted.* and security labels are this host's business, and would steer overlayfs
            if name == b"system.posix_acl_default":
                self._acls.append((path, value))
                self._hold(len(path) + len(value))
                continue
            try:
                os.setxattr(path, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno not in {errno.ENOTSUP, errno.EPERM} or not name.startswith(b"user."):
                    raise

    def _finish(self) -> None:
        """Give directories what would have disturbed their children: set-id bits, default ACLs and times."""
        for path, value in self._acls:
            if stat.S_ISDIR(_mode(path)):
                try:
                    os.setxattr(path, b"system.posix_acl_default", value)
                except OSError as error:
                    what = f"directory {shown(path)} of the layer has a default access list that cannot be set"
                    raise FailedPrecondition(f"{what}: {(error.strerror or '').lower()}") from error
        for path, (mode, mtime_ns) in self._directories.items():
            if mode & 0o7000 or path == b"/":
                os.chmod(path, mode)
            os.utime(path, ns=(mtime_ns, mtime_ns))


def _mode(path: bytes) -> int:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0


def _set_opaque(path: bytes) -> None:
    os.setxattr(path, b"trusted.overlay.opaque", b"y", follow_symlinks=False)


def _explained(error: OSError, entry: Entry) -> Exception:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return error
    return FailedPrecondition(f"tar member {shown(entry.name)} cannot be written: {error.strerror or error}")
