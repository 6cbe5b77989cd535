"""Read files of an image through its overlay layers without mounting them.

A mount for a look into /etc/passwd would cost a mount namespace or a mount that the host sees; reading the layers as the
kernel merges them (Documentation/filesystems/overlayfs.rst) costs some lstat calls.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from shim.container.spec.regular import read_regular
from shim.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

LINKS = 40  # path_resolution(7)
OPAQUE = "trusted.overlay.opaque"
ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


class RootfsReader(Protocol):
    """A container's root as far as it can be read before it exists."""

    def read(self, path: str, *, limit: int) -> bytes | None:
        """Give the content of the regular file at `path`, None when it does not exist.

        Raises InvalidArgument when it is no regular file, longer than `limit` bytes or behind too many symbolic links.
        """
        ...


class LayeredRootfs:
    """The merged view of overlay layers, `layers` topmost first (also of a single directory).

    A path never leaves the layers: symbolic links are followed by name inside the view, ".." stops at its root, and the
    host's own resolution only ever sees directories that lstat has shown to be directories.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        self._layers = tuple(layers)

    def read(self, path: str, *, limit: int) -> bytes | None:
        """See RootfsReader.read."""
        found = self._resolve(path)
        if found is None:
            return None
        if isinstance(found, tuple):
            raise InvalidArgument(f"{path} of the image is a directory")
        data = read_regular(found, limit, follow=False)
        if data is None:
            raise InvalidArgument(f"{path} of the image is not a regular file")
        if len(data) > limit:
            raise InvalidArgument(f"{path} of the image is longer than {limit} bytes")
        return data

    def places(self, path: str) -> tuple[str, ...]:
        """Give where `path` lies: the directories that merge to it, topmost first, or the one file; () when there is nothing.

        Raises InvalidArgument for what is neither a directory nor a regular file.
        """
        found = self._resolve(path)
        return found if isinstance(found, tuple) else (found,) if found is not None else ()

    def _resolve(self, path: str) -> str | tuple[str, ...] | None:
        """Give the layer's path of the regular file that `path` means in the merged view, or a directory's places.

        None when there is neither.
        """
        pending = deque(path.split("/"))
        directories = [self._layers]  # the way down: at each step, the directories that merge there
        links = 0
        while pending:
            part = pending.popleft()
            if part in {"", "."}:
                continue
            if part == "..":
                if len(directories) > 1:
                    directories.pop()
                continue
            merged, other = _step(directories[-1], part)
            if merged:
                directories.append(merged)
                continue
            if other is None:
                return None
            if not stat.S_ISLNK(os.lstat(other).st_mode):
                return self._last(path, other, pending)
            links += 1
            if links > LINKS:
                raise InvalidArgument(f"{path} of the image is behind more than {LINKS} symbolic links")
            target = os.readlink(other)
            if target.startswith("/"):
                del directories[1:]
            pending.extendleft(reversed(target.split("/")))
        return directories[-1]

    @staticmethod
    def _last(path: str, found: str, pending: deque[str]) -> str | None:
        """Accept a file at the end of the path only; before that it is in the way, as ENOTDIR says."""
        if any(part not in {"", "."} for part in pending):
            return None
        if not stat.S_ISREG(os.lstat(found).st_mode):
            raise InvalidArgument(f"{path} of the image is not a regular file")
        return found


def _step(directories: Sequence[str], name: str) -> tuple[tuple[str, ...], str | None]:
    """Look `name` up where `directories` merge: the directories it merges to, or the one other file it is."""
    merged: list[str] = []
    for directory in directories:
        path = f"{directory}/{name}"
        try:
            status = os.lstat(path)
        except OSError as error:
            if error.errno in ABSENT:
                continue
            raise
        if not stat.S_ISDIR(status.st_mode):
            whiteout = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
            return tuple(merged), None if merged or whiteout else path
        merged.append(path)
        if _is_opaque(path):
            break
    return tuple(merged), None


def _is_opaque(path: str) -> bool:
    with suppress(OSError):  # no attribute, or a file system without any
        return os.getxattr(path, OPAQUE, follow_symlinks=False) == b"y"
    return False
