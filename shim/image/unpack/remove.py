"""Delete a directory tree of any depth and width, without ever following a link or leaving it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

DEPTH = 64
"""Levels held open at once; what is deeper is moved up to the top first."""
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def run(params: dict[str, Any], fds: list[int], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Remove the trees params["paths"] (each may be missing already); the entry point of the "rmtree" job.

    All are tried; the first OSError is raised at the end.
    """
    del fds, report
    failure: OSError | None = None
    for path in params["paths"]:
        try:
            remove_tree(path)
        except OSError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return {}


def remove_tree(path: str) -> None:
    """Remove `path`, whatever it is; a missing one is no error; raise OSError."""
    try:
        fd = os.open(path, _OPEN)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(path)
        return
    try:
        empty_directory(fd)
    finally:
        os.close(fd)
    os.rmdir(path)


def empty_directory(root: int) -> None:
    """Remove everything in the directory `root` (a descriptor that stays open); raise OSError.

    A container can make trees deeper than PATH_MAX and than the number of descriptors: below DEPTH levels a directory is
    renamed into the root and its turn comes later.
    """
    moved = 0
    while names := _sweep(root):
        for name in names:
            moved = _remove_below(root, name, moved)


def _remove_below(root: int, name: str, moved: int) -> int:
    levels = [os.open(name, _OPEN, dir_fd=root)]
    path = [name]
    try:
        pending = [_sweep(levels[0])]
        while levels:
            if not pending[-1]:
                os.close(levels.pop())
                pending.pop()
                os.rmdir(path.pop(), dir_fd=levels[-1] if levels else root)
                continue
            child = pending[-1].pop()
            if len(levels) >= DEPTH:
                moved = _move_up(child, levels[-1], root, moved)
                continue
            levels.append(os.open(child, _OPEN, dir_fd=levels[-1]))
            path.append(child)
            pending.append(_sweep(levels[-1]))
    finally:
        for fd in levels:
            os.close(fd)
    return moved


def _move_up(child: str, parent: int, root: int, moved: int) -> int:
    """Rename `child` to a free name in the root; give the number of the name that was free."""
    while True:
        moved += 1
        try:
            os.rename(child, f".wherry-removed-{moved}", src_dir_fd=parent, dst_dir_fd=root)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                raise
        else:
            return moved


def _sweep(fd: int) -> list[str]:
    """Unlink everything in a directory but directories, and give the names of those."""
    with os.scandir(fd) as entries:
        listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in listed:
        if not is_directory:
            os.unlink(name, dir_fd=fd)
    return [name for name, is_directory in listed if is_directory]
