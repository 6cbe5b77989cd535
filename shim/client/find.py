"""Finding what a person means: by name, by id, or by the beginning of an id.

A pod made by `wherry run` holds one container of the same name, and the two are one thing to whoever made them: whatever
names one of them names both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from shim.client.errors import NotFoundError
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from shim.client.connection import Connection

T = TypeVar("T", api_pb2.PodSandbox, api_pb2.Container)

RUN_LABEL = "io.wherry.run"
"""Label of pods that `wherry run` made."""
LOGS_ANNOTATION = "io.wherry.logs"
"""Annotation of such a pod: the log directory that goes when it goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A pod, and the container in it that was meant; None when the whole pod was."""

    pod: api_pb2.PodSandbox
    container: api_pb2.Container | None = None

    @property
    def whole_pod(self) -> bool:
        """Say whether the pod goes or stops with the container."""
        return self.container is None or self.pod.labels.get(RUN_LABEL) == "true"


def pods(connection: Connection) -> list[api_pb2.PodSandbox]:
    """List all pods, the newest first."""
    items = connection.runtime.ListPodSandbox(api_pb2.ListPodSandboxRequest()).items
    return sorted(items, key=lambda pod: -pod.created_at)


def containers(connection: Connection, *, pod: str = "", running: bool = False) -> list[api_pb2.Container]:
    """List containers, the newest first; of one pod, or those that run."""
    wanted = api_pb2.ContainerFilter(pod_sandbox_id=pod)
    if running:
        wanted.state.state = api_pb2.CONTAINER_RUNNING
    items = connection.runtime.ListContainers(api_pb2.ListContainersRequest(filter=wanted)).containers
    return sorted(items, key=lambda container: -container.created_at)


def find(connection: Connection, name: str) -> Target:
    """Find a pod or a container; raise NotFoundError when none or several fit. A pod wins over a container of its name."""
    everything = pods(connection)
    found_pods = _fitting(everything, name)
    if len(found_pods) == 1:
        return Target(pod=found_pods[0])
    found = _fitting(containers(connection), name)
    if len(found) == 1 and not found_pods:
        return Target(pod=next(pod for pod in everything if pod.id == found[0].pod_sandbox_id), container=found[0])
    ids = [pod.id for pod in found_pods] + [container.id for container in found]
    raise _unclear(name, "pod or container", ids)


def find_container(connection: Connection, name: str) -> api_pb2.Container:
    """Find a container, also by its pod when that has only one; raise NotFoundError when none or several fit."""
    found = _fitting(containers(connection), name)
    if not found:
        matching = _fitting(pods(connection), name)
        if len(matching) == 1:
            found = containers(connection, pod=matching[0].id)
            if len(found) != 1:
                names = ", ".join(sorted(container.metadata.name for container in found)) or "none"
                raise NotFoundError(f"pod {name} has not one container but {len(found)}: {names}")
    if len(found) != 1:
        raise _unclear(name, "container", [container.id for container in found])
    return found[0]


def _fitting(items: list[T], name: str) -> list[T]:
    exact = [item for item in items if item.id == name]
    named = [item for item in items if item.metadata.name == name]
    return exact or named or [item for item in items if name and item.id.startswith(name)]


def _unclear(name: str, kind: str, ids: list[str]) -> NotFoundError:
    if not ids:
        return NotFoundError(f"no {kind} has the name or id {name!r}")
    shortened = ", ".join(identifier[:12] for identifier in ids)
    return NotFoundError(f"{name!r} fits more than one {kind}: {shortened}; give more of the id")
