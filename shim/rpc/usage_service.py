"""The part of runtime.v1.RuntimeService about usage: stats, metrics, changes of limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shim.container.stats import container_stats, list_container_stats
from shim.container.update import update_container_resources
from shim.gen.runtime.v1 import api_pb2
from shim.pod.metrics import list_pod_sandbox_metrics
from shim.pod.stats import list_pod_sandbox_stats, pod_sandbox_stats
from shim.pod.update import update_pod_sandbox_resources
from shim.rpc.streams import chunks
from shim.stats.kernel import untold
from shim.stats.metrics import descriptors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shim.pod.node import Node

LOOK_SECONDS = 5.0


class UsageService:
    """Decode, call, encode."""

    _node: Node

    async def container_stats(self, request: api_pb2.ContainerStatsRequest) -> api_pb2.ContainerStatsResponse:
        """Give what one container uses."""
        return api_pb2.ContainerStatsResponse(stats=await container_stats(self._node, request.container_id))

    async def list_container_stats(self, request: api_pb2.ListContainerStatsRequest) -> api_pb2.ListContainerStatsResponse:
        """Give what containers use."""
        return api_pb2.ListContainerStatsResponse(stats=await list_container_stats(self._node, request.filter))

    async def stream_container_stats(
        self, request: api_pb2.StreamContainerStatsRequest
    ) -> AsyncIterator[api_pb2.StreamContainerStatsResponse]:
        """Give what containers use, in parts."""
        for part in chunks(await list_container_stats(self._node, request.filter)):
            yield api_pb2.StreamContainerStatsResponse(container_stats=part)

    async def pod_sandbox_stats(self, request: api_pb2.PodSandboxStatsRequest) -> api_pb2.PodSandboxStatsResponse:
        """Give what one pod uses."""
        return api_pb2.PodSandboxStatsResponse(stats=await pod_sandbox_stats(self._node, request.pod_sandbox_id))

    async def list_pod_sandbox_stats(self, request: api_pb2.ListPodSandboxStatsRequest) -> api_pb2.ListPodSandboxStatsResponse:
        """Give what pods use."""
        return api_pb2.ListPodSandboxStatsResponse(stats=await list_pod_sandbox_stats(self._node, request.filter))

    async def stream_pod_sandbox_stats(
        self, request: api_pb2.StreamPodSandboxStatsRequest
    ) -> AsyncIterator[api_pb2.StreamPodSandboxStatsResponse]:
        """Give what pods use, in parts."""
        for part in chunks(await list_pod_sandbox_stats(self._node, request.filter)):
            yield api_pb2.StreamPodSandboxStatsResponse(pod_sandbox_stats=part)

    async def list_metric_descriptors(
        self, _request: api_pb2.ListMetricDescriptorsRequest
    ) -> api_pb2.ListMetricDescriptorsResponse:
        """Give the names, meanings and labels of the metrics."""
        missing = await self._node.in_thread(untold, LOOK_SECONDS, "looking at the kernel's control groups")
        return api_pb2.ListMetricDescriptorsResponse(descriptors=descriptors(self._node.stats.metrics, missing))

    async def list_pod_sandbox_metrics(
        self, _request: api_pb2.ListPodSandboxMetricsRequest
    ) -> api_pb2.ListPodSandboxMetricsResponse:
        """Give the metrics of all pods."""
        return api_pb2.ListPodSandboxMetricsResponse(pod_metrics=await list_pod_sandbox_metrics(self._node))

    async def stream_pod_sandbox_metrics(
        self, _request: api_pb2.StreamPodSandboxMetricsRequest
    ) -> AsyncIterator[api_pb2.StreamPodSandboxMetricsResponse]:
        """Give the metrics of all pods, in parts."""
        for part in chunks(await list_pod_sandbox_metrics(self._node)):
            yield api_pb2.StreamPodSandboxMetricsResponse(pod_sandbox_metrics=part)

    async def update_container_resources(
        self, request: api_pb2.UpdateContainerResourcesRequest
    ) -> api_pb2.UpdateContainerResourcesResponse:
        """Change the limits of a container."""
        await update_container_resources(self._node, request.container_id, request.linux, dict(request.annotations))
        return api_pb2.UpdateContainerResourcesResponse()

    async def update_pod_sandbox_resources(
        self, request: api_pb2.UpdatePodSandboxResourcesRequest
    ) -> api_pb2.UpdatePodSandboxResourcesResponse:
        """Change the limits of a pod as a whole."""
        await update_pod_sandbox_resources(self._node, request.pod_sandbox_id, request.overhead, request.resources)
        return api_pb2.UpdatePodSandboxResourcesResponse()
