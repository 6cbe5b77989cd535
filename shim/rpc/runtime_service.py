"""runtime.v1.RuntimeService: what each served RPC calls. Methods bear the RPCs' names in snake case."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from shim.container.attach import attach_url
from shim.container.create import create_container
from shim.container.exec import exec_url
from shim.container.exec_sync import exec_sync
from shim.container.remove import remove_container
from shim.container.reopen_log import reopen_container_log
from shim.container.start import start_container
from shim.container.status import get_container, image_of, list_containers, runtime_spec
from shim.container.stop import stop_container
from shim.gen.runtime.v1 import api_pb2
from shim.pod.port_forward import port_forward
from shim.pod.remove import remove_pod_sandbox
from shim.pod.run import run_pod_sandbox
from shim.pod.status import get_pod, list_pods
from shim.pod.stop import stop_pod_sandbox
from shim.rpc import encode, node_status
from shim.rpc.checkpoint_service import CheckpointService
from shim.rpc.event_service import EventService
from shim.rpc.usage_service import UsageService

if TYPE_CHECKING:
    from shim.pod.node import Node


class RuntimeService(UsageService, EventService, CheckpointService):
    """Decode, call, encode."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def version(self, _request: api_pb2.VersionRequest) -> api_pb2.VersionResponse:
        """Say who we are."""
        return node_status.version()

    async def status(self, request: api_pb2.StatusRequest) -> api_pb2.StatusResponse:
        """Give the conditions, the handlers and their features."""
        return node_status.status(self._node, verbose=request.verbose)

    async def runtime_config(self, _request: api_pb2.RuntimeConfigRequest) -> api_pb2.RuntimeConfigResponse:
        """Give the cgroup driver."""
        return node_status.runtime_config(self._node)

    async def update_runtime_config(self, request: api_pb2.UpdateRuntimeConfigRequest) -> api_pb2.UpdateRuntimeConfigResponse:
        """Take the node's pod CIDR."""
        await node_status.update_pod_cidr(self._node, request.runtime_config.network_config.pod_cidr)
        return api_pb2.UpdateRuntimeConfigResponse()

    async def run_pod_sandbox(self, request: api_pb2.RunPodSandboxRequest) -> api_pb2.RunPodSandboxResponse:
        """Run a pod."""
        pod_id = await run_pod_sandbox(self._node, request.config, request.runtime_handler)
        return api_pb2.RunPodSandboxResponse(pod_sandbox_id=pod_id)

    async def stop_pod_sandbox(self, request: api_pb2.StopPodSandboxRequest) -> api_pb2.StopPodSandboxResponse:
        """Stop a pod."""
        await stop_pod_sandbox(self._node, request.pod_sandbox_id)
        return api_pb2.StopPodSandboxResponse()

    async def remove_pod_sandbox(self, request: api_pb2.RemovePodSandboxRequest) -> api_pb2.RemovePodSandboxResponse:
        """Remove a pod."""
        await remove_pod_sandbox(self._node, request.pod_sandbox_id)
        return api_pb2.RemovePodSandboxResponse()

    async def pod_sandbox_status(self, request: api_pb2.PodSandboxStatusRequest) -> api_pb2.PodSandboxStatusResponse:
        """Give the status of a pod with those of its containers."""
        pod = get_pod(self._node, request.pod_sandbox_id)
        info = {"info": encode.pod_info(self._node, pod)} if request.verbose else {}
        members = self._node.created_in(pod.id)
        return api_pb2.PodSandboxStatusResponse(
            status=encode.pod_status(pod),
            info=info,
            containers_statuses=[encode.container_status(one, image_of(self._node, one)) for one in members],
            timestamp=time.time_ns(),
        )

    async def list_pod_sandbox(self, request: api_pb2.ListPodSandboxRequest) -> api_pb2.ListPodSandboxResponse:
        """List pods."""
        pods = list_pods(self._node, request.filter)
        return api_pb2.ListPodSandboxResponse(items=[encode.pod_item(pod) for pod in pods])

    async def create_container(self, request: api_pb2.CreateContainerRequest) -> api_pb2.CreateContainerResponse:
        """Create a container; the pod's configuration is the one it was run with."""
        container_id = await create_container(self._node, request.pod_sandbox_id, request.config)
        return api_pb2.CreateContainerResponse(container_id=container_id)

    async def start_container(self, request: api_pb2.StartContainerRequest) -> api_pb2.StartContainerResponse:
        """Start a container."""
        await start_container(self._node, request.container_id)
        return api_pb2.StartContainerResponse()

    async def stop_container(self, request: api_pb2.StopContainerRequest) -> api_pb2.StopContainerResponse:
        """Stop a container."""
        await stop_container(self._node, request.container_id, request.timeout)
        return api_pb2.StopContainerResponse()

    async def remove_container(self, request: api_pb2.RemoveContainerRequest) -> api_pb2.RemoveContainerResponse:
        """Remove a container."""
        await remove_container(self._node, request.container_id)
        return api_pb2.RemoveContainerResponse()

    async def list_containers(self, request: api_pb2.ListContainersRequest) -> api_pb2.ListContainersResponse:
        """List containers."""
        containers = list_containers(self._node, request.filter)
        return api_pb2.ListContainersResponse(containers=[encode.container_item(one) for one in containers])

    async def container_status(self, request: api_pb2.ContainerStatusRequest) -> api_pb2.ContainerStatusResponse:
        """Give the status of a container."""
        container = get_container(self._node, request.container_id)
        info = {}
        if request.verbose:
            spec = runtime_spec(self._node, container)
            info = {"info": encode.container_info(self._node, container, spec)}
        return api_pb2.ContainerStatusResponse(
            status=encode.container_status(container, image_of(self._node, container)), info=info
        )

    async def reopen_container_log(self, request: api_pb2.ReopenContainerLogRequest) -> api_pb2.ReopenContainerLogResponse:
        """Reopen a log after its rotation."""
        await reopen_container_log(self._node, request.container_id)
        return api_pb2.ReopenContainerLogResponse()

    async def exec_sync(self, request: api_pb2.ExecSyncRequest) -> api_pb2.ExecSyncResponse:
        """Run a command in a container."""
        result = await exec_sync(self._node, request.container_id, request.cmd, request.timeout)
        return api_pb2.ExecSyncResponse(stdout=result.stdout, stderr=result.stderr, exit_code=result.exit_code)

    async def exec(self, request: api_pb2.ExecRequest) -> api_pb2.ExecResponse:
        """Prepare to run a command whose streams a client gets."""
        return api_pb2.ExecResponse(url=await exec_url(self._node, request))

    async def attach(self, request: api_pb2.AttachRequest) -> api_pb2.AttachResponse:
        """Prepare to join a client with a container."""
        return api_pb2.AttachResponse(url=await attach_url(self._node, request))

    async def port_forward(self, request: api_pb2.PortForwardRequest) -> api_pb2.PortForwardResponse:
        """Prepare to join a client with ports of a pod."""
        return api_pb2.PortForwardResponse(url=await port_forward(self._node, request.pod_sandbox_id, request.port))
