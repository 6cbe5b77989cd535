"""The part of runtime.v1.RuntimeService that streams: container events, and pods and containers in parts."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from shim.container.status import image_of, list_containers
from shim.errors import ResourceExhausted, Unavailable
from shim.events import QUEUE_LIMIT, EventKind
from shim.gen.runtime.v1 import api_pb2
from shim.pod.status import list_pods
from shim.rpc import encode
from shim.rpc.streams import chunks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from shim.events import ContainerEvent
    from shim.pod.node import Node

KINDS = {
    EventKind.CREATED: api_pb2.CONTAINER_CREATED_EVENT,
    EventKind.STARTED: api_pb2.CONTAINER_STARTED_EVENT,
    EventKind.STOPPED: api_pb2.CONTAINER_STOPPED_EVENT,
    EventKind.DELETED: api_pb2.CONTAINER_DELETED_EVENT,
}


class EventService:
    """Decode, call, encode."""

    _node: Node

    async def stream_pod_sandboxes(
        self, request: api_pb2.StreamPodSandboxesRequest
    ) -> AsyncIterator[api_pb2.StreamPodSandboxesResponse]:
        """List pods, in parts."""
        for part in chunks(encode.pod_item(pod) for pod in list_pods(self._node, request.filter)):
            yield api_pb2.StreamPodSandboxesResponse(pod_sandboxes=part)

    async def stream_containers(
        self, request: api_pb2.StreamContainersRequest
    ) -> AsyncIterator[api_pb2.StreamContainersResponse]:
        """List containers, in parts."""
        for part in chunks(encode.container_item(one) for one in list_containers(self._node, request.filter)):
            yield api_pb2.StreamContainersResponse(containers=part)

    async def get_container_events(self, _request: api_pb2.GetEventsRequest) -> AsyncGenerator[api_pb2.ContainerEventResponse]:
        """Tell of every change from now on, once, in order; a client that lags too far behind is sent away to list anew."""
        async with contextlib.aclosing(self._node.events.listen()) as events:
            async for event in events:
                yield self._response(event)
        if self._node.events.closed:
            raise Unavailable("wherryd is stopping")
        raise ResourceExhausted(
            f"more than {QUEUE_LIMIT} events were waiting for this client: list what there is, and listen again"
        )

    def _response(self, event: ContainerEvent) -> api_pb2.ContainerEventResponse:
        return api_pb2.ContainerEventResponse(
            container_id=event.container_id,
            container_event_type=KINDS[event.kind],
            created_at=event.at,
            pod_sandbox_status=None if event.pod is None else encode.pod_status(event.pod),
            containers_statuses=[encode.container_status(one, image_of(self._node, one)) for one in event.containers],
        )
