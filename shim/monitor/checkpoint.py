"""Save containers at one moment: all are frozen before the first is written, and all run on after the last, or a failure."""

from __future__ import annotations

import contextlib
import os

from runtime.checkpoint.request import CriuOptions
from runtime.record import replace
from shim import process
from shim.errors import FailedPrecondition, InvalidArgument
from shim.monitor.files import write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shim.monitor.container import Container
    from shim.monitor.protocol import CheckpointRequest

IMAGES = "checkpoint"
ROOTFS_DIFF = "rootfs-diff.tar"
DELETED = "deleted.files"
SHARED_MEMORY = "devshm-checkpoint.tar"
SECONDS = 300.0
"""Time one container may take to be written, and its changed files."""
DEFAULTS: dict[str, bool] = {"tcp_close": True, "file_locks": True, "ext_unix_sk": True}
"""A restored container has another address and other neighbours: what connected it to them is given up."""
OPTIONS = ("tcp_established", "tcp_close", "file_locks", "ext_unix_sk", "shell_job")


def criu_options(folder: str, options: dict[str, bool]) -> CriuOptions:
    """Give the options of a checkpoint in `folder`; cgroups are ours, so criu leaves them alone."""
    for name in options:
        if name not in OPTIONS:
            raise InvalidArgument(f"criu option {name!r} is not one of {', '.join(OPTIONS)}")
    return replace(CriuOptions(images=os.path.join(folder, IMAGES), work=folder, cgroups_mode="ignore"), **options)


def criu_flags(folder: str, options: dict[str, bool]) -> list[str]:
    """Give the same for runc's command line, which knows no tcp_close; its older ones cannot be told to leave cgroups alone."""
    flags = [f"--{name.replace('_', '-')}" for name, wanted in options.items() if wanted and name != "tcp_close"]
    return ["--image-path", os.path.join(folder, IMAGES), "--work-path", folder, *flags]


async def save(containers: list[Container], request: CheckpointRequest) -> None:
    """Freeze the containers, save each, and let those that ran run on, whatever happened meanwhile.

    Raises FailedPrecondition for one that does not run, and what criu says.
    """
    if len(containers) != len(request.folders):
        raise InvalidArgument("a checkpoint needs one folder a container")
    for one in containers:
        if one.status != "running":
            raise FailedPrecondition(f"container {one.request.container_id} is {one.status}; only a running one can be saved")
    seconds = request.timeout_s or SECONDS
    async with contextlib.AsyncExitStack() as thaw:
        for one in containers:
            if not one.runtime.is_frozen():
                thaw.push_async_callback(one.runtime.resume, one.request.container_id)
                await one.runtime.pause(one.request.container_id)
        for one, folder in zip(containers, request.folders, strict=True):
            await one.runtime.checkpoint(one.request.container_id, folder, request.options, seconds)
            await _save_files(one, folder, seconds)
        if request.shared_memory and containers:
            shared = os.path.join(os.path.dirname(request.folders[0]), SHARED_MEMORY)
            await _save_shared(containers[0], request.shared_memory, shared, seconds)


async def _save_shared(one: Container, source: str, path: str, seconds: float) -> None:
    def work() -> dict[str, Any]:
        from shim.monitor.diff import write_diff  # noqa: PLC0415 - it imports tarfile, which no monitor needs to carry

        return {"deleted": write_diff(source, path)}

    await process.call(one.reactor, "wherry-diff", work, seconds=seconds)


async def _save_files(one: Container, folder: str, seconds: float) -> None:
    rootfs = one.request.rootfs
    if rootfs is None or not rootfs.upper:
        return
    upper = rootfs.upper

    def work() -> dict[str, Any]:
        from shim.monitor.diff import write_diff  # noqa: PLC0415 - as above

        deleted = write_diff(upper, os.path.join(folder, ROOTFS_DIFF))
        write_json(os.path.join(folder, DELETED), deleted)
        return {}

    await process.call(one.reactor, "wherry-diff", work, seconds=seconds)
