"""Take away what a container leaves on the disk."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shim.pod.node import Node


async def remove_container_dir(node: Node, container_id: str) -> None:
    """Remove the bundle and the writable layer; a layer with content is deleted by a job, however large it is."""
    directory = node.container_dir(container_id)
    if _small(directory):
        shutil.rmtree(directory, ignore_errors=True)
        return
    await node.jobs.job("rmtree", {"path": directory}, timeout=None)


def _small(directory: str) -> bool:
    """Say whether nothing was written into the writable layer (or nothing is there at all)."""
    for name in ("upper", "rootfs"):
        try:
            with os.scandir(f"{directory}/{name}") as entries:
                if next(entries, None) is not None:
                    return False
        except OSError:
            continue
    return True
