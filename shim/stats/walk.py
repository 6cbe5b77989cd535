"""Walk a writable layer: a little of it on a thread, all of it in a job."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 512


def walk(directory: str, most: int | None = None) -> tuple[int, int] | None:
    """Give the bytes and inodes a tree takes, hard links once; None when it has more than `most` entries.

    What vanishes meanwhile is left out.
    """
    with contextlib.suppress(OSError):
        used = os.lstat(directory).st_blocks * BLOCK
        return _walk_below(directory, used, most)
    return 0, 0


def _walk_below(directory: str, used: int, most: int | None) -> tuple[int, int] | None:
    inodes = 1
    linked: set[int] = set()
    waiting = [directory]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif status.st_nlink > 1:
                        if status.st_ino in linked:
                            continue
                        linked.add(status.st_ino)
                    used += status.st_blocks * BLOCK
                    inodes += 1
                if most is not None and inodes > most:
                    return None
    return used, inodes


def run(params: dict[str, Any], _fds: list[int], _report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Be the job that walks a large layer."""
    used, inodes = walk(str(params["path"])) or (0, 0)
    return {"used": used, "inodes": inodes}
