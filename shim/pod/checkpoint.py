"""CheckpointPod: containers of a pod saved at one moment, into a directory that RestorePod reads (KEP-5823, cri-api 0.37)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from google.protobuf.json_format import MessageToJson

from shim.container.checkpoint import save_containers
from shim.container.checkpoint_names import POD_CONFIG, POD_OPTIONS
from shim.container.spec.namespaces import uses_user_namespace
from shim.errors import FailedPrecondition, InvalidArgument
from shim.monitor.checkpoint import DEFAULTS, OPTIONS, SHARED_MEMORY
from shim.pod.rollback import Rollback, settled
from shim.store.containers import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.pod.node import Node
    from shim.store.containers import Container
    from shim.store.pods import Pod

VERSION = 1
SECONDS = 300.0
"""Time each step has; the caller's deadline bounds the whole."""
_WORDS = {"true": True, "false": False}


async def checkpoint_pod(
    node: Node, pod_id: str, output_path: str, container_ids: tuple[str, ...], options: Mapping[str, str]
) -> None:
    """Save the named containers of a pod into the directory `output_path`; all run on.

    The directory is the caller's, there and empty. Raises NotFound, InvalidArgument (an id of another pod, one told twice, none
    at all, an unknown option, a path that is none), FailedPrecondition (a container that does not run, a pod that could not be
    restored), and what criu says; what was written is gone then.
    """
    if not os.path.isabs(output_path):
        raise InvalidArgument(f"output_path {output_path!r} is not an absolute path")
    pod = node.pods.get(pod_id)
    if not pod.ready:
        raise FailedPrecondition(f"pod {pod.id} is not running; only a running pod can be saved")
    if uses_user_namespace(pod.config.linux.security_context.namespace_options.userns_options):
        raise FailedPrecondition(f"pod {pod.id} has a user namespace: criu could not restore it; run the pod without one")
    chosen = criu_choice(options)
    containers = _containers(node, pod, container_ids)
    shm = pod.status.namespaces.get("shm", "")
    folders = {f"{output_path}/{name}": container for name, container in containers.items()}
    await node.in_thread(lambda: _claim(output_path), SECONDS, f"preparing {output_path}")
    async with Rollback() as rollback:
        files = [f"{output_path}/{one}" for one in (POD_OPTIONS, POD_CONFIG, SHARED_MEMORY)]
        rollback.undo("pod checkpoint", _remove, node, [*folders, *files])
        saving = node.flights.join(
            ("checkpoint pod", pod.id), lambda: save_containers(node, folders, chosen, SECONDS, shm), token=output_path
        )
        await settled(saving)
        await node.in_thread(lambda: _describe(output_path, pod, containers), SECONDS, f"writing {output_path}")
        rollback.pop_all()


def criu_choice(options: Mapping[str, str]) -> dict[str, bool]:
    """Give criu's options from those of a request, "true" or "false" by runc's flag names; raise InvalidArgument."""
    chosen = dict(DEFAULTS)
    for key, value in options.items():
        name = key.replace("-", "_")
        if value not in _WORDS:
            raise InvalidArgument(f"option {key!r} must be true or false, not {value!r}")
        if name == "leave_running":
            if not _WORDS[value]:
                raise InvalidArgument("option leave-running cannot be false: the pod goes on after its checkpoint")
            continue
        if name not in OPTIONS:
            known = ", ".join(one.replace("_", "-") for one in ("leave_running", *OPTIONS))
            raise InvalidArgument(f"option {key!r} is not known; there are {known}")
        chosen[name] = _WORDS[value]
    if chosen.get("tcp_established") and "tcp-close" not in options and "tcp_close" not in options:
        chosen["tcp_close"] = False
    return chosen


def _containers(node: Node, pod: Pod, wanted: tuple[str, ...]) -> dict[str, Container]:
    """Give the containers to save by their names."""
    if not wanted:
        raise InvalidArgument("container_ids is empty: a checkpoint names the containers it is to hold")
    members = [node.containers.get(one) for one in wanted]
    for container in members:
        if container.pod_id != pod.id:
            raise InvalidArgument(f"container {container.id} belongs to another pod")
        if container.state is not State.RUNNING or container.status.removing:
            raise FailedPrecondition(f"container {container.id} is {container.state}; only running containers can be saved")
    if len({container.id for container in members}) != len(members):
        raise InvalidArgument("container_ids tells a container twice")
    named = {container.config.metadata.name: container for container in members}
    if len(named) != len(members):
        raise InvalidArgument(
            f"two of the containers of pod {pod.id} in container_ids have one name, by which they are restored"
        )
    return named


def _claim(path: str) -> None:
    try:
        taken = os.listdir(path)
    except OSError as error:
        raise InvalidArgument(f"output_path {path!r} cannot be used: {error.strerror}") from error
    if taken:
        raise InvalidArgument(f"output_path {path!r} is not empty")


def _describe(path: str, pod: Pod, containers: Mapping[str, Container]) -> None:
    """Write, last, what makes the directory a checkpoint."""
    with open(f"{path}/{POD_CONFIG}", "w", encoding="utf-8") as file:
        file.write(MessageToJson(pod.config, preserving_proto_field_name=True, indent=None))
    document = {"version": VERSION, "containers": {name: name for name in containers}}
    with open(f"{path}/{POD_OPTIONS}", "w", encoding="utf-8") as file:
        json.dump(document, file)


async def _remove(node: Node, paths: list[str]) -> None:
    await node.jobs.job("rmtree", {"paths": paths}, timeout=None)
