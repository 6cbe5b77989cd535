"""Where an image that is mounted as a volume lies: directories of its layers, found without mounting them (KEP-4639)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shim.container.spec.layers import LayeredRootfs
from shim.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shim.gen.runtime.v1.api_pb2 import ContainerConfig, Mount

FAILED = "ImageVolumeMountFailed"
"""Word that kubelet reads (cri-api, pkg/errors)."""


def check_image_mount(mount: Mount, field: str) -> None:
    """Raise InvalidArgument for a mount of an image that asks for what cannot be."""
    if not mount.image.image:
        raise InvalidArgument(f"{FAILED}: {field}.image.image is empty")
    if mount.host_path:
        raise InvalidArgument(f"{FAILED}: {field} has an image and host_path {mount.host_path!r}; give one of them")
    if not mount.readonly:
        raise InvalidArgument(f"{FAILED}: {field}.readonly must be true: an image as a volume is never written to")
    path = mount.image_sub_path
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise InvalidArgument(f"{FAILED}: {field}.image_sub_path {path!r} is not a path below the image's root")


def locate(layers: Sequence[str], mount: Mount, index: int) -> tuple[str, ...]:
    """Give the directories that merge to the volume, topmost first, or the one file it is; raise NotFound, InvalidArgument."""
    if not mount.image_sub_path:
        return tuple(layers)
    try:
        found = LayeredRootfs(layers).places(mount.image_sub_path)
    except InvalidArgument as error:
        raise InvalidArgument(f"{FAILED}: mounts[{index}].image_sub_path: {error}") from error
    if not found:
        name = mount.image.user_specified_image or mount.image.image
        raise NotFound(f"{FAILED}: mounts[{index}].image_sub_path {mount.image_sub_path!r} does not exist in image {name}")
    return found


def placed(config: ContainerConfig, places: Mapping[int, tuple[str, ...]]) -> ContainerConfig:
    """Give the config with host paths where it mounts images: what is looked at on the host is the topmost place."""
    if not places:
        return config
    copy = type(config)()
    copy.CopyFrom(config)
    for index, found in places.items():
        copy.mounts[index].host_path = found[0]
    return copy
