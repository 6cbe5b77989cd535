"""The files of an archive, wherever they are: members of a tar, or a directory in OCI layout."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shim.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from shim.image.unpack.magic import is_compressed

if TYPE_CHECKING:
    from shim.image.jobs import Jobs

_LAYOUT = re.compile(r"oci-layout|index\.json|blobs/sha(256|512)/[0-9a-f]{64,128}")
_FOLLOWED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file's bytes: `size` of them from `offset` on in `fd`, or all of the file `path`."""

    size: int
    offset: int = 0
    path: str = ""


class ArchiveFiles:
    """The files of one archive by name; `close` when done."""

    def __init__(self, fd: int, what: str, members: dict[str, Any] | None) -> None:
        self._fd = fd
        self._what = what
        self._members = members

    def close(self) -> None:
        """Close the archive."""
        os.close(self._fd)

    def has(self, name: str) -> bool:
        """Say whether there is a file of this name."""
        try:
            self.member(name)
        except NotFound:
            return False
        return True

    def member(self, name: str) -> Member:
        """Find a file, through links within the archive; raise NotFound, FailedPrecondition."""
        if self._members is None:
            return self._in_directory(name)
        clean = posixpath.normpath(name).lstrip("/")
        for _ in range(_FOLLOWED):
            entry = self._members.get(clean)
            if entry is None:
                break
            kind, offset, size, link = entry
            if kind == "0":
                return Member(size=size, offset=offset)
            if kind not in {"1", "2"}:
                break
            base = posixpath.dirname(clean) if kind == "2" else ""
            clean = posixpath.normpath(posixpath.join("/", base, link)).lstrip("/")
        raise NotFound(f"{self._what} has no file {name[:120]!r}")

    def read(self, name: str, limit: int) -> bytes:
        """Give a whole small file; raise NotFound, FailedPrecondition when it is larger than `limit`."""
        member = self.member(name)
        if member.size > limit:
            raise FailedPrecondition(f"{name[:120]!r} in {self._what} is larger than {limit} bytes")
        fd, own = self.open(member)
        try:
            return os.pread(fd, member.size, member.offset)
        finally:
            if own:
                os.close(fd)

    def open(self, member: Member) -> tuple[int, bool]:
        """Give a descriptor for a file's bytes, and whether the caller must close it."""
        if member.path:
            return os.open(member.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd), True
        return self._fd, False

    def _in_directory(self, name: str) -> Member:
        if not _LAYOUT.fullmatch(name):
            raise NotFound(f"{self._what} has no file {name[:120]!r}")
        try:
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except OSError as error:
            raise NotFound(f"{self._what} has no file {name[:120]!r}") from error
        if not stat.S_ISREG(status.st_mode):
            raise FailedPrecondition(f"{name[:120]!r} in {self._what} is not a file")
        return Member(size=status.st_size, path=name)


async def open_archive(jobs: Jobs, archive: str | int, spool_folder: str, max_bytes: int) -> ArchiveFiles:
    """Open an archive: a path, or a descriptor (which stays the caller's); raise NotFound, InvalidArgument.

    What cannot be read at any place, because it is compressed or comes through a pipe, is first written to a nameless
    file in `spool_folder`.
    """
    what = f"archive {archive!r}" if isinstance(archive, str) else "the archive"
    try:
        fd = os.open(archive, os.O_RDONLY | os.O_CLOEXEC) if isinstance(archive, str) else os.dup(archive)
    except OSError as error:
        raise NotFound(f"{what} cannot be opened: {error.strerror}") from error
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            return ArchiveFiles(fd, what, None)
        if not stat.S_ISREG(mode) or is_compressed(os.pread(fd, 4, 0)):
            fd = await _spooled(jobs, fd, what, spool_folder, max_bytes)
        try:
            index = await jobs.run({"op": "index", "what": what}, (fd,))
        except FailedPrecondition as error:
            raise InvalidArgument(f"{what} is not a usable tar archive: {error}") from error
        return ArchiveFiles(fd, what, index["members"])
    except BaseException:
        os.close(fd)
        raise


async def _spooled(jobs: Jobs, fd: int, what: str, folder: str, max_bytes: int) -> int:
    """Give a descriptor of a nameless file with the plain bytes of `fd`, which is closed."""
    try:
        spool = os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ResourceExhausted(f"{what} cannot be spooled in {folder}: {error.strerror}") from error
    try:
        await jobs.run({"op": "spool", "what": what, "max_bytes": max_bytes}, (fd, spool))
    except BaseException:
        os.close(spool)
        raise
    os.close(fd)
    return spool
