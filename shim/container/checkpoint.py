"""CheckpointContainer: a container's processes and changed files in one tar, in the layout of kubelet's checkpoints."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from shim.container.checkpoint_names import CONFIG, SPEC, STATUS, TIMES
from shim.container.spec.paths import log_directory
from shim.container.status import image_of
from shim.errors import FailedPrecondition, InvalidArgument, WherryError
from shim.monitor.checkpoint import DEFAULTS
from shim.monitor.protocol import CheckpointRequest
from shim.pod.rollback import settled
from shim.rpc.encode import container_status
from shim.store.containers import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.pod.node import Node
    from shim.store.containers import Container

LOG = "dump.log"
SECONDS = 100.0
"""Time each step has when the caller names none; kubelet gives up after 120 s."""
_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
"""One checkpoint in a pod at a time: the end of one would let containers run on that another holds still."""


async def checkpoint_container(node: Node, container_id: str, location: str, wanted_seconds: int) -> None:
    """Save a running container into the tar `location`, which is replaced; it runs on, also after a failure.

    Raises NotFound, InvalidArgument for a location that is no absolute path into a directory, FailedPrecondition for a
    container that does not run, and what criu says. `wanted_seconds` is the caller's timeout, 0 for
    the daemon's own.
    """
    container = _running(node, container_id)
    _check(location, wanted_seconds)
    await node.flights.join(
        ("checkpoint", container.id), lambda: _save(node, container, location, wanted_seconds or SECONDS), token=location
    )


def _check(location: str, seconds: int) -> None:
    if seconds < 0:
        raise InvalidArgument("timeout must not be negative")
    if not os.path.isabs(location) or os.path.isdir(location):
        raise InvalidArgument(f"location {location!r} is not the absolute path of a file")
    if not os.path.isdir(os.path.dirname(location)):
        raise InvalidArgument(f"location {location!r} is in no directory that exists")


async def _save(node: Node, container: Container, location: str, seconds: float) -> None:
    folder = f"{node.container_dir(container.id)}/checkpoint-{secrets.token_hex(4)}"
    try:
        await settled(save_containers(node, {folder: container}, DEFAULTS, seconds))
        log = {"log": container.meta.log_path, "log_directory": log_directory(node.pods.get(container.pod_id).config)}
        params = {"action": "pack", "folder": folder, "location": location, **log}
        await node.in_job("checkpoint", params, seconds, f"writing checkpoint {location}")
    finally:
        await settled(node.jobs.job("rmtree", {"paths": [folder]}, timeout=None))


async def save_containers(
    node: Node, folders: Mapping[str, Container], options: dict[str, bool], seconds: float, shared_memory: str = ""
) -> None:
    """Save running containers of one pod at one moment, each into a new folder; the folders are the caller's to remove.

    With `shared_memory`, the directory that is the pod's /dev/shm, that is saved beside the folders.
    """
    containers = list(folders.values())
    documents = {folder: _documents(node, container) for folder, container in folders.items()}
    await node.in_thread(lambda: _write(documents), seconds, "preparing a checkpoint")
    request = CheckpointRequest(
        containers=tuple(container.id for container in containers),
        folders=tuple(folders),
        options=options,
        shared_memory=shared_memory,
        timeout_s=seconds,
    )
    pod_id = containers[0].pod_id
    lock = _locks.setdefault(pod_id, asyncio.Lock())
    try:
        async with lock:
            await node.monitors.get(pod_id).checkpoint(request)
    except WherryError as error:
        raise _with_log_kept(node, folders, error) from error


def _with_log_kept(node: Node, folders: Mapping[str, Container], error: WherryError) -> WherryError:
    """Move criu's logs to the containers' own directories, because the folders go; give the error that names them there."""
    text = str(error)
    for folder, container in folders.items():
        kept = f"{node.container_dir(container.id)}/{LOG}"
        with contextlib.suppress(OSError):
            shutil.copyfile(f"{folder}/{LOG}", kept)
        text = text.replace(f"{folder}/{LOG}", kept)
    return type(error)(text)


def _running(node: Node, container_id: str) -> Container:
    container = node.containers.get(container_id)
    if container.state is not State.RUNNING or container.status.removing:
        raise FailedPrecondition(f"container {container.id} is {container.state}; only a running container can be saved")
    return container


def _documents(node: Node, container: Container) -> dict[str, bytes]:
    """Give the files that say what container it was."""
    image = image_of(node, container)
    status = container_status(container, image)
    with open(f"{node.container_dir(container.id)}/config.json", "rb") as file:
        spec = file.read()
    config: dict[str, Any] = {
        "id": container.id,
        "name": container.config.metadata.name,
        "rootfsImage": container.config.image.image,
        "rootfsImageRef": container.meta.image_id,
        "rootfsImageName": container.config.image.user_specified_image or container.config.image.image,
        "runtime": container.meta.handler or "wherry-oci",
        "createdTime": _time(container.meta.created_at),
        "checkpointedTime": _time(time.time_ns()),
        "restoredTime": "0001-01-01T00:00:00Z",
        "restored": False,
    }
    times = {
        "CreatedAt": container.status.created_at,
        "StartedAt": container.status.started_at,
        "FinishedAt": 0,
        "ExitCode": 0,
        "Pid": container.status.pid,
        "Reason": "",
        "Message": "",
    }
    from google.protobuf.json_format import MessageToDict  # noqa: PLC0415 - a rare need

    return {
        CONFIG: _json(config),
        SPEC: spec,
        STATUS: _json(MessageToDict(status, preserving_proto_field_name=True)),
        TIMES: _json(times),
    }


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _time(nanoseconds: int) -> str:
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09d}Z"


def _write(documents: Mapping[str, Mapping[str, bytes]]) -> None:
    for folder, files in documents.items():
        os.makedirs(folder, 0o700)
        for name, data in files.items():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(f"{folder}/{name}", flags, 0o600), "wb") as file:
                file.write(data)
