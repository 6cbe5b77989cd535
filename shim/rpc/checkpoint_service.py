"""The part of runtime.v1.RuntimeService about checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shim.container.checkpoint import checkpoint_container
from shim.gen.runtime.v1 import api_pb2
from shim.pod.checkpoint import checkpoint_pod
from shim.pod.restore import restore_pod

if TYPE_CHECKING:
    from shim.pod.node import Node


class CheckpointService:
    """Decode, call, encode."""

    _node: Node

    async def checkpoint_container(self, request: api_pb2.CheckpointContainerRequest) -> api_pb2.CheckpointContainerResponse:
        """Save a container into an archive; it runs on."""
        await checkpoint_container(self._node, request.container_id, request.location, request.timeout)
        return api_pb2.CheckpointContainerResponse()

    async def checkpoint_pod(self, request: api_pb2.CheckpointPodRequest) -> api_pb2.CheckpointPodResponse:
        """Save containers of a pod at one moment; they run on."""
        await checkpoint_pod(
            self._node, request.pod_sandbox_id, request.output_path, tuple(request.container_ids), dict(request.options)
        )
        return api_pb2.CheckpointPodResponse()

    async def restore_pod(self, request: api_pb2.RestorePodRequest) -> api_pb2.RestorePodResponse:
        """Run a pod whose containers continue from a checkpoint once they are started."""
        restored = await restore_pod(self._node, request)
        return api_pb2.RestorePodResponse(
            pod_sandbox_id=restored.pod_id,
            restored_containers=[
                api_pb2.RestoredContainer(name=name, container_id=container_id)
                for name, container_id in restored.containers.items()
            ],
        )
