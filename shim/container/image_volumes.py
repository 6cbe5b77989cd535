"""Images as volumes of a container: which they are, and what keeps their layers while it exists."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from shim.container.spec.image_mounts import FAILED, locate
from shim.errors import NotFound
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from shim.pod.node import Node
    from shim.store.containers import Container

SECONDS = 20.0
"""Time to find the paths in the layers, on the node's own disk."""


def with_image_ids(node: Node, config: api_pb2.ContainerConfig) -> api_pb2.ContainerConfig:
    """Give the config with the id of each image it mounts in image_ref, where the container's status shows it (KEP-5365).

    Raises NotFound for an image that has not been pulled.
    """
    if not any(mount.HasField("image") for mount in config.mounts):
        return config
    found = api_pb2.ContainerConfig()
    found.CopyFrom(config)
    for index, mount in enumerate(found.mounts):
        if mount.HasField("image"):
            try:
                mount.image.image_ref = node.images.resolve(mount.image.image).id
            except NotFound as error:
                raise NotFound(f"{FAILED}: mounts[{index}].image: {error}") from error
    return found


async def prepare_image_volumes(node: Node, container: Container) -> dict[int, tuple[str, ...]]:
    """Hold the images' layers and give, by the index of the mount, the directories that merge to the volume, topmost first.

    Removing the container's root undoes it. Raises NotFound for a path that the image has not got.
    """
    places: dict[int, tuple[str, ...]] = {}
    for index, mount in enumerate(container.config.mounts):
        if mount.HasField("image"):
            layers = await node.images.hold(container.id, mount.image.image_ref)
            what = f"looking at mounts[{index}].image of container {container.name}"
            places[index] = await node.in_thread(partial(locate, layers, mount, index), SECONDS, what)
    return places
