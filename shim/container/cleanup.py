"""Take away what a container leaves on the disk."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

from runtime.kernel.mount import umount2

if TYPE_CHECKING:
    from shim.pod.node import Node

_MNT_DETACH = 2
FEW = 64
"""Entries that are deleted at once; more are deleted by a job, beside the event loop."""


async def remove_container_dir(node: Node, container_id: str) -> None:
    """Remove the bundle and the writable layer, and let go of the image's layers; harmless when all is gone."""
    directory = node.container_dir(container_id)
    clear_few(f"{directory}/upper")
    for place in (node.mounted_root(container_id), f"{directory}/rootfs"):
        _unmount(place)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(node.mounted_root(container_id))
    await node.images.remove_rootfs(container_id)
    if is_small(directory):
        shutil.rmtree(directory, ignore_errors=True)
    elif os.path.lexists(directory):  # noqa: ASYNC240 - one look at the local root directory
        await node.jobs.job("rmtree", {"paths": [directory]}, timeout=None)


def _unmount(place: str) -> None:
    """Take away the root of another runtime's container that a monitor could not, because it was lost."""
    if os.path.ismount(place):
        umount2(place, _MNT_DETACH)


def clear_few(directory: str) -> None:
    """Empty a directory if few entries are below it; the container is dead, so nothing changes meanwhile."""
    if not is_small(directory):
        return
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


def is_small(directory: str) -> bool:
    """Say whether at most FEW entries are below a directory, looking at no more than that."""
    seen = 0
    waiting = [directory]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                seen += 1
                if seen > FEW:
                    return False
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return True
