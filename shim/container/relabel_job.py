"""Give directory trees of the host a container's SELinux label: the spawner job, since a tree may be large or its disk dead.

Parameters: `label`; `trees`, from a path without symbolic links to the CRI field that asks for it.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from runtime.kernel.path import AT_FDCWD, RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from shim.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Callable

ATTRIBUTE = "security.selinux"
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""What a name in a directory says that was replaced since it was listed."""


def run(params: dict[str, Any], _fds: list[int], _report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Label every tree; raise FailedPrecondition naming the one that cannot be."""
    for path, field in params["trees"].items():
        try:
            relabel(path if field else os.path.realpath(path), params["label"])
        except OSError as error:
            what = f"{field}: " if field else ""
            raise FailedPrecondition(f"{what}{path} cannot be labelled {params['label']}: {error.strerror}") from error
    return {}


def relabel(path: str, label: str) -> None:
    """Label `path` and what is below it, links themselves and not what they point to; raise OSError.

    What has the label is not written to, so a second container with the same one costs reading only. A file system
    without labels is no error. Whoever can write to the tree can swap directories for links meanwhile: every directory is
    opened from the top without following any.
    """
    value = label.encode()
    top = openat2(AT_FDCWD, path, os.O_PATH, resolve=RESOLVE_NO_SYMLINKS)
    try:
        _label(f"/proc/self/fd/{top}", value, follow=True)
        waiting = ["."] if os.path.isdir(f"/proc/self/fd/{top}") else []
        while waiting:
            waiting += _label_entries(top, waiting.pop(), value)
    finally:
        os.close(top)


def _label_entries(top: int, folder: str, value: bytes) -> list[str]:
    """Label what lies in one directory below `top`; give the directories among it."""
    try:
        fd = openat2(top, folder, os.O_RDONLY | os.O_DIRECTORY, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise
    try:
        with os.scandir(fd) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, _ in found:
            _label(f"/proc/self/fd/{fd}/{name}", value, follow=False)
    finally:
        os.close(fd)
    return [f"{folder}/{name}" for name, is_folder in found if is_folder]


def _label(path: str, value: bytes, *, follow: bool) -> None:
    try:
        if _has(path, value, follow=follow):
            return
        os.setxattr(path, ATTRIBUTE, value, follow_symlinks=follow)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP and (follow or error.errno not in _GONE):
            raise


def _has(path: str, value: bytes, *, follow: bool) -> bool:
    try:
        return os.getxattr(path, ATTRIBUTE, follow_symlinks=follow).rstrip(b"\0") == value
    except OSError as error:
        if error.errno == errno.ENODATA:
            return False
        raise
