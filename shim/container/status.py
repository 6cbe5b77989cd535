"""ListContainers and ContainerStatus: from memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from shim.errors import NotFound
from shim.gen.runtime.v1 import api_pb2
from shim.pod.status import selected
from shim.store.containers import State

if TYPE_CHECKING:
    from shim.gen.runtime.v1.api_pb2 import ContainerFilter
    from shim.image.record import ImageRecord
    from shim.pod.node import Node
    from shim.store.containers import Container

STATES = {
    api_pb2.CONTAINER_CREATED: State.CREATED,
    api_pb2.CONTAINER_RUNNING: State.RUNNING,
    api_pb2.CONTAINER_EXITED: State.EXITED,
    api_pb2.CONTAINER_UNKNOWN: State.UNKNOWN,
}


def list_containers(node: Node, wanted: ContainerFilter) -> list[Container]:
    """Give the containers that pass the filter; ids may be prefixes, and one that is unknown matches nothing."""
    containers = [container for container in node.containers if container.status.created_at]
    if wanted.id:
        found = node.containers.find(wanted.id)
        containers = [container for container in containers if found is not None and container.id == found.id]
    if wanted.pod_sandbox_id:
        pod = node.pods.find(wanted.pod_sandbox_id)
        containers = [container for container in containers if pod is not None and container.pod_id == pod.id]
    if wanted.HasField("state"):
        containers = [container for container in containers if container.state is STATES.get(wanted.state.state)]
    if wanted.label_selector:
        containers = [container for container in containers if selected(container.config.labels, wanted.label_selector)]
    return containers


def get_container(node: Node, container_id: str) -> Container:
    """Give a container; raise NotFound, also for one whose CreateContainer has not succeeded (yet)."""
    container = node.containers.get(container_id)
    if not container.status.created_at:
        raise NotFound(f"container {container_id!r} is still being made")
    return container


def image_of(node: Node, container: Container) -> ImageRecord | None:
    """Give the container's image, or None when it has been removed meanwhile."""
    try:
        return node.images.resolve(container.meta.image_id)
    except NotFound:
        return None


def runtime_spec(node: Node, container: Container) -> Any:
    """Give the container's config.json as JSON values, or None when it cannot be read."""
    try:
        with open(f"{node.container_dir(container.id)}/config.json", "rb") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None
