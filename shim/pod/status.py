"""ListPodSandbox and PodSandboxStatus: from memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shim.errors import NotFound
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.gen.runtime.v1.api_pb2 import PodSandboxFilter
    from shim.pod.node import Node
    from shim.store.pods import Pod


def list_pods(node: Node, wanted: PodSandboxFilter) -> list[Pod]:
    """Give the pods that pass the filter; an id may be a prefix, and one that is unknown matches nothing."""
    pods = [pod for pod in node.pods if pod.status.ready_at]
    if wanted.id:
        found = node.pods.find(wanted.id)
        pods = [pod for pod in pods if found is not None and pod.id == found.id]
    if wanted.HasField("state"):
        ready = wanted.state.state == api_pb2.SANDBOX_READY
        pods = [pod for pod in pods if pod.ready == ready]
    if wanted.label_selector:
        pods = [pod for pod in pods if selected(pod.config.labels, wanted.label_selector)]
    return pods


def get_pod(node: Node, pod_id: str) -> Pod:
    """Give a pod; raise NotFound, also for one whose RunPodSandbox has not succeeded (yet)."""
    pod = node.pods.get(pod_id)
    if not pod.status.ready_at:
        raise NotFound(f"pod {pod_id!r} is still being made")
    return pod


def selected(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Say whether every label of the selector is there with its value."""
    return all(labels.get(key) == value for key, value in selector.items())
