"""A CRI client for tests, demo and benchmarks: the generated stubs and the few calls everybody makes."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from shim.gen.runtime.v1 import api_pb2, api_pb2_grpc
from shim.gen.wherry.v1 import wherry_pb2_grpc
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LIMIT = 64 * 1024 * 1024
"""Bytes of the largest message accepted; ExecSync may answer with 32 MiB."""


class Cri:
    """A connection to a CRI endpoint."""

    def __init__(self, address: str, *interceptors: Any) -> None:
        target = address if "://" in address else f"unix://{address}"
        options = [("grpc.max_receive_message_length", LIMIT), ("grpc.max_send_message_length", LIMIT)]
        self.channel = grpc.intercept_channel(grpc.insecure_channel(target, options=options), *interceptors)
        self.runtime: Any = api_pb2_grpc.RuntimeServiceStub(self.channel)
        self.images: Any = api_pb2_grpc.ImageServiceStub(self.channel)
        self.wherry: Any = wherry_pb2_grpc.WherryServiceStub(self.channel)

    def close(self) -> None:
        """Close the connection."""
        self.channel.close()

    def ready(self) -> bool:
        """Say whether the endpoint answers Version."""
        try:
            self.runtime.Version(api_pb2.VersionRequest(), timeout=2)
        except grpc.RpcError:
            return False
        return True

    def run_pod(self, config: api_pb2.PodSandboxConfig, handler: str = "") -> str:
        """Run a pod and give its id."""
        request = api_pb2.RunPodSandboxRequest(config=config, runtime_handler=handler)
        return str(self.runtime.RunPodSandbox(request, timeout=60).pod_sandbox_id)

    def create(self, pod: str, config: api_pb2.ContainerConfig, pod_config: api_pb2.PodSandboxConfig) -> str:
        """Create a container and give its id."""
        request = api_pb2.CreateContainerRequest(pod_sandbox_id=pod, config=config, sandbox_config=pod_config)
        return str(self.runtime.CreateContainer(request, timeout=60).container_id)

    def start(self, container: str) -> None:
        """Start a container."""
        self.runtime.StartContainer(api_pb2.StartContainerRequest(container_id=container), timeout=60)

    def stop(self, container: str, timeout: int = 0) -> None:
        """Stop a container, with seconds of grace."""
        self.runtime.StopContainer(api_pb2.StopContainerRequest(container_id=container, timeout=timeout), timeout=60)

    def remove(self, container: str) -> None:
        """Remove a container."""
        self.runtime.RemoveContainer(api_pb2.RemoveContainerRequest(container_id=container), timeout=60)

    def remove_pod(self, pod: str) -> None:
        """Stop and remove a pod with everything in it."""
        self.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod), timeout=60)
        self.runtime.RemovePodSandbox(api_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod), timeout=60)

    def remove_all(self) -> None:
        """Remove every pod."""
        for pod in self.pods():
            self.remove_pod(pod.id)

    def pods(self) -> list[api_pb2.PodSandbox]:
        """List the pods."""
        return list(self.runtime.ListPodSandbox(api_pb2.ListPodSandboxRequest(), timeout=10).items)

    def containers(self) -> list[api_pb2.Container]:
        """List the containers."""
        return list(self.runtime.ListContainers(api_pb2.ListContainersRequest(), timeout=10).containers)

    def pod_status(self, pod: str) -> api_pb2.PodSandboxStatus:
        """Give the status of a pod."""
        return self.runtime.PodSandboxStatus(api_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod), timeout=10).status

    def status(self, container: str) -> api_pb2.ContainerStatus:
        """Give the status of a container."""
        return self.runtime.ContainerStatus(api_pb2.ContainerStatusRequest(container_id=container), timeout=10).status

    def info(self, container: str) -> dict[str, Any]:
        """Give the verbose information on a container, decoded."""
        request = api_pb2.ContainerStatusRequest(container_id=container, verbose=True)
        decoded = json.loads(self.runtime.ContainerStatus(request, timeout=10).info["info"])
        assert isinstance(decoded, dict)
        return decoded

    def wait_exit(self, container: str, *, seconds: float = 20.0) -> api_pb2.ContainerStatus:
        """Wait until a container has exited and give its status."""

        def exited() -> api_pb2.ContainerStatus | None:
            status = self.status(container)
            return status if status.state == api_pb2.CONTAINER_EXITED else None

        status = wait_for(exited, f"container {container[:12]} to exit", seconds=seconds)
        assert status is not None
        return status

    def execute(self, container: str, *command: str, timeout: int = 30) -> api_pb2.ExecSyncResponse:
        """Run a command in a container and give its output and exit code."""
        request = api_pb2.ExecSyncRequest(container_id=container, cmd=command, timeout=timeout)
        return self.runtime.ExecSync(request, timeout=timeout + 10)

    def pull(self, reference: str, auth: api_pb2.AuthConfig | None = None) -> str:
        """Pull an image and give its id."""
        request = api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=reference), auth=auth)
        return str(self.images.PullImage(request, timeout=300).image_ref)

    def remove_image(self, reference: str) -> None:
        """Remove an image."""
        self.images.RemoveImage(api_pb2.RemoveImageRequest(image=api_pb2.ImageSpec(image=reference)), timeout=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodMaker:
    """Configurations of pods whose logs lie below `logs`."""

    logs: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def pod(
        self, name: str = "", *, host_network: bool = False, cgroup_parent: str = "", **fields: Any
    ) -> api_pb2.PodSandboxConfig:
        """Make a pod's configuration; a name is made up when there is none."""
        name = name or f"pod-{uuid.uuid4().hex[:8]}"
        modes = api_pb2.NamespaceOption(
            network=api_pb2.NODE if host_network else api_pb2.POD, pid=api_pb2.CONTAINER, ipc=api_pb2.POD
        )
        config = api_pb2.PodSandboxConfig(
            metadata=api_pb2.PodSandboxMetadata(name=name, uid=uuid.uuid4().hex, namespace="default", attempt=0),
            hostname="" if host_network else name,
            log_directory=f"{self.logs}/{name}",
            labels=dict(self.labels),
            linux=api_pb2.LinuxPodSandboxConfig(
                cgroup_parent=cgroup_parent,
                security_context=api_pb2.LinuxSandboxSecurityContext(namespace_options=modes),
            ),
        )
        config.MergeFrom(api_pb2.PodSandboxConfig(**fields))
        return config

    def container(
        self, image: str, command: Sequence[str] = (), *, name: str = "main", **fields: Any
    ) -> api_pb2.ContainerConfig:
        """Make a container's configuration; the log is <name>_0.log in the pod's log directory."""
        modes = api_pb2.NamespaceOption(network=api_pb2.POD, pid=api_pb2.CONTAINER, ipc=api_pb2.POD)
        config = api_pb2.ContainerConfig(
            metadata=api_pb2.ContainerMetadata(name=name, attempt=0),
            image=api_pb2.ImageSpec(image=image),
            command=command,
            log_path=f"{name}_0.log",
            linux=api_pb2.LinuxContainerConfig(
                resources=api_pb2.LinuxContainerResources(),
                security_context=api_pb2.LinuxContainerSecurityContext(namespace_options=modes),
            ),
        )
        config.MergeFrom(api_pb2.ContainerConfig(**fields))
        return config
