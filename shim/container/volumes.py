"""An image's VOLUMEs: a directory each beside the container's root, filled with what the image has there.

kubelet does not know them, so they live and die with the container. The paths come from the image: they are resolved inside
its root and nowhere else (CVE-2022-23648), by a spawner job that sees the layers through an overlay of its own which is
mounted nowhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shim.container.spec.mounts import volume_paths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shim.image.record import ImageRecord
    from shim.pod.node import Node
    from shim.store.containers import Container

SECONDS = 110.0
"""Time the copies may take; kubelet gives up after 120 s."""


async def prepare_volumes(node: Node, container: Container, image: ImageRecord, lower: Sequence[str]) -> dict[str, str]:
    """Make the directories and give them by container path; {} for most images.

    Removing the container's directory undoes it. Raises InvalidArgument for a volume on something that is no directory,
    ResourceExhausted on a full disk, DeadlineExceeded.
    """
    paths = volume_paths(image.config.volumes, container.config)
    if not paths:
        return {}
    top = f"{node.container_dir(container.id)}/volumes"
    volumes = {path: f"{top}/{number}" for number, path in enumerate(paths)}
    params = {"lower": list(lower), "top": top, "volumes": [[path, folder] for path, folder in volumes.items()]}
    await node.jobs.job("volumes", params, timeout=SECONDS)
    return volumes
