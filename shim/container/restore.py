"""A container made from a checkpoint: found by its image's name, its files put in place; its processes come at the start."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from shim.container.checkpoint_names import CONFIG, INVENTORY, OPTIONS
from shim.errors import FailedPrecondition, InvalidArgument, NotFound
from shim.monitor.checkpoint import DEFAULTS, ROOTFS_DIFF
from shim.monitor.files import read_json, write_json

if TYPE_CHECKING:
    from shim.gen.runtime.v1.api_pb2 import ContainerConfig
    from shim.image.record import ImageRecord
    from shim.pod.node import Node

FOLDER = "restore"
"""In a container's directory: the files of the checkpoint it is restored from."""
SECONDS = 100.0
"""Time to read a checkpoint; kubelet gives up after 120 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A checkpoint that somebody names beside the container's configuration: a tar or a folder, and criu's options."""

    path: str
    options: dict[str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSource:
    """A checkpoint: a tar or a folder, the image its container had, and criu's options for its restore."""

    path: str
    image: ImageRecord
    options: dict[str, bool]


async def find_checkpoint(node: Node, config: ContainerConfig, given: Given | None = None) -> CheckpointSource | None:
    """Give the checkpoint a container is to be made from, None for a container that is to be started afresh.

    It is one when `given`, when the image's name is an absolute path, or when the image holds nothing but a checkpoint. The
    image it had is the configured one, or else the one it names, pulled when absent. Raises NotFound, FailedPrecondition.
    """
    name = config.image.image
    path = given.path if given is not None else (name if name.startswith("/") else "")
    if not path:
        record = node.images.resolve(name)
        path = checkpoint_layer(record, node.images.layer_paths(record.id))
        if not path:
            return None
        name = ""
    params = {"action": "look", "source": os.path.realpath(path)}  # noqa: ASYNC240 - the job looks again
    found = await node.in_job("checkpoint", params, SECONDS, f"reading checkpoint {path}")
    image = await _base_image(node, found["config"], "" if name.startswith("/") else name)
    saved = found["config"].get("rootfsImageRef")
    if given is not None and saved and saved != image.id:
        raise FailedPrecondition(f"checkpoint {path} is of a container of image {saved}, not of {name} ({image.id})")
    return CheckpointSource(path=params["source"], image=image, options=DEFAULTS if given is None else given.options)


def checkpoint_layer(record: ImageRecord, layers: tuple[str, ...]) -> str:
    """Give the layer of an image that is a checkpoint: one that runs nothing and has a checkpoint's files; else ""."""
    if record.config.entrypoint or record.config.cmd or len(layers) != 1:
        return ""
    return layers[0] if all(os.path.isfile(os.path.join(layers[0], one)) for one in (CONFIG, INVENTORY)) else ""


async def _base_image(node: Node, document: dict[str, Any], configured: str) -> ImageRecord:
    names = [configured, *(document.get(key) for key in ("rootfsImageRef", "rootfsImageName", "rootfsImage"))]
    wanted = [name for name in names if isinstance(name, str) and name]
    if not wanted:
        raise InvalidArgument("the checkpoint does not name the image of its container (rootfsImageName)")
    for name in wanted:
        try:
            return node.images.resolve(name)
        except (NotFound, InvalidArgument):
            continue
    return node.images.resolve(await node.images.pull(wanted[-1], None))


async def place_checkpoint(node: Node, container_id: str, upper: str | None, source: CheckpointSource) -> None:
    """Copy the checkpoint beside the container and its changed files into the writable layer.

    Removing the container's directory undoes it. Raises FailedPrecondition for a damaged checkpoint, ResourceExhausted.
    """
    folder = f"{node.container_dir(container_id)}/{FOLDER}"
    params: dict[str, Any] = {"action": "import", "source": source.path, "folder": folder}
    found = await node.in_job("checkpoint", params, SECONDS, f"reading checkpoint {source.path}")
    await node.in_thread(partial(write_json, f"{folder}/{OPTIONS}", source.options), SECONDS, f"writing {folder}/{OPTIONS}")
    if found["diff"] and upper:
        await unpack_files(node, folder, upper)


async def unpack_files(node: Node, folder: str, target: str, name: str = ROOTFS_DIFF) -> None:
    """Unpack the tar `name` of a checkpoint's folder into the directory `target`, bounded as an image's layer is."""
    images = node.config.image
    params = {
        "action": "apply",
        "folder": folder,
        "diff": name,
        "upper": target,
        "source": folder,
        "max_bytes": images.max_layer_bytes,
        "max_entries": images.max_layer_entries,
        "max_ratio": images.max_ratio,
    }
    await node.in_job("checkpoint", params, SECONDS, f"unpacking the files of checkpoint {folder}")


def restored_from(directory: str) -> str:
    """Give the folder of the checkpoint that the container in this directory is to be restored from, "" for none."""
    folder = f"{directory}/{FOLDER}"
    return folder if os.path.isdir(folder) else ""


def restore_options(folder: str) -> dict[str, bool]:
    """Give criu's options for a restore from this folder; the usual ones where an older wherryd has noted none."""
    return read_json(f"{folder}/{OPTIONS}") or DEFAULTS
