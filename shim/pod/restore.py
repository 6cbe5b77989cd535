"""RestorePod: a new pod whose containers come from a pod's checkpoint; each continues when it is started (KEP-5823)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from shim.container.checkpoint_names import POD_OPTIONS, SPEC
from shim.container.create import create_container
from shim.container.remove import remove_container
from shim.container.restore import Given, restored_from, unpack_files
from shim.errors import FailedPrecondition, InvalidArgument, NotFound
from shim.monitor.checkpoint import SHARED_MEMORY
from shim.pod.checkpoint import SECONDS, VERSION, criu_choice
from shim.pod.remove import remove_pod_sandbox
from shim.pod.rollback import Rollback
from shim.pod.run import run_pod_sandbox
from shim.pod.stop import stop_pod_sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.gen.runtime.v1.api_pb2 import ContainerConfig, RestorePodRequest
    from shim.pod.node import Node

_LIMIT = 1024 * 1024
_DOCUMENT = 16 * _LIMIT
"""Bytes of a config.json."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredPod:
    """A pod and its containers by their names."""

    pod_id: str
    containers: dict[str, str]


async def restore_pod(node: Node, request: RestorePodRequest) -> RestoredPod:
    """Run a pod and create its containers from the checkpoint; they wait to be started. A failure leaves nothing.

    The configurations are those of the new pod; each names a container of the checkpoint, and each of the checkpoint must be
    named. Raises NotFound, FailedPrecondition for what is no checkpoint or not of such a container, InvalidArgument, and what
    running a pod raises.
    """
    path = request.checkpoint_path
    options = criu_choice(request.options)
    folders = await node.in_thread(lambda: checkpoint_folders(path), SECONDS, f"reading checkpoint {path}")
    configs = match_configs(path, folders, list(request.container_configs))
    async with Rollback() as rollback:
        pod_id = await run_pod_sandbox(node, request.config, request.runtime_handler)
        rollback.undo("pod", remove_pod_sandbox, node, pod_id)
        rollback.undo("running pod", stop_pod_sandbox, node, pod_id)
        shm = node.pods.get(pod_id).status.namespaces.get("shm", "")
        if shm and os.path.isfile(f"{path}/{SHARED_MEMORY}"):  # noqa: ASYNC240 - one look; the job reads it
            await unpack_files(node, path, shm, SHARED_MEMORY)
        restored: dict[str, str] = {}
        for name, config in configs.items():
            restored[name] = await create_container(node, pod_id, config, Given(path=folders[name], options=options))
            rollback.undo("container", remove_container, node, restored[name])
            await node.in_thread(partial(_check_process, node, restored[name], name), SECONDS, "reading a checkpoint")
        rollback.pop_all()
    return RestoredPod(pod_id=pod_id, containers=restored)


def _check_process(node: Node, container_id: str, name: str) -> None:
    """Raise FailedPrecondition unless the configuration describes the process that was saved.

    Its environment is not compared: names and addresses of the pod are in it, and these are the new pod's.
    """
    directory = node.container_dir(container_id)
    asked, saved = _process(f"{directory}/config.json"), _process(f"{restored_from(directory)}/{SPEC}")
    for what in asked:
        if asked[what] != saved[what]:
            raise FailedPrecondition(f"container {name!r} was saved with {what} {saved[what]!r}, not {asked[what]!r}")


def _process(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            process = json.loads(file.read(_DOCUMENT))["process"]
        user = process.get("user") or {}
        return {"args": process["args"], "cwd": process["cwd"], "user": (user.get("uid", 0), user.get("gid", 0))}
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise FailedPrecondition(f"{path} does not tell the process that was saved: {error}") from error


def checkpoint_folders(path: str) -> dict[str, str]:
    """Give the folders of a pod's checkpoint by the names of their containers."""
    if not os.path.isabs(path):
        raise InvalidArgument(f"checkpoint_path {path!r} is not an absolute path")
    try:
        with open(f"{path}/{POD_OPTIONS}", "rb") as file:
            document = json.loads(file.read(_LIMIT))
        version, names = document["version"], document["containers"]
        folders = {str(name): os.path.join(path, str(folder)) for name, folder in names.items()}
    except FileNotFoundError as error:
        raise NotFound(f"{path} is not the checkpoint of a pod: it has no {POD_OPTIONS}") from error
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise FailedPrecondition(f"{POD_OPTIONS} in {path} cannot be read: {error}") from error
    if version != VERSION:
        raise FailedPrecondition(f"{path} has version {version!r} of a pod's checkpoint; this runtime reads version {VERSION}")
    for folder in folders.values():
        if os.path.dirname(folder) != path.rstrip("/"):
            raise FailedPrecondition(f"{POD_OPTIONS} in {path} names the folder {folder}, which is not in it")
    return folders


def match_configs(path: str, folders: Mapping[str, str], configs: list[ContainerConfig]) -> dict[str, ContainerConfig]:
    """Give the configurations by name; raise InvalidArgument unless there is one for each container of the checkpoint."""
    found = {config.metadata.name: config for config in configs}
    if not configs or "" in found:
        raise InvalidArgument("container_configs is empty, or one of them has no metadata with a name")
    if len(found) != len(configs):
        raise InvalidArgument("two of container_configs have one name")
    for name in found:
        if name not in folders:
            raise InvalidArgument(f"checkpoint {path} has no container {name!r}; it has {', '.join(sorted(folders))}")
    for name in folders:
        if name not in found:
            raise InvalidArgument(f"container_configs has no configuration for container {name!r} of checkpoint {path}")
    return found
