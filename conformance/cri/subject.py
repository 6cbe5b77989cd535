"""What is judged: an endpoint, the image its containers use, and pods that are gone after the test that made them."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.cri import Cri, PodMaker
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from conformance.cri.seen import Seen
    from tests.support.registry import Registry

OWNER = "conformance-cri"
"""Label of every pod of ours."""
SLEEP = ("sleep", "100000")
Code = grpc.StatusCode
REFUSALS = frozenset(
    (
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.FAILED_PRECONDITION,
        Code.ALREADY_EXISTS,
        Code.RESOURCE_EXHAUSTED,
        Code.UNKNOWN,
        Code.INTERNAL,
    )
)
"""Codes that tell a client that its request was understood and declined; the CRI prescribes NOT_FOUND alone."""


@dataclass(slots=True, kw_only=True)
class Pod:
    """A pod that was run, and what tests do with it."""

    cri: Cri
    make: PodMaker
    image: str
    id: str
    config: api_pb2.PodSandboxConfig

    def order(self, command: Sequence[str] = SLEEP, *, name: str = "", **fields: Any) -> api_pb2.ContainerConfig:
        """Make a container's configuration, in the pod's namespaces."""
        config = self.make.container(self.image, command, name=name or f"c{uuid.uuid4().hex[:8]}")
        modes = self.config.linux.security_context.namespace_options
        config.linux.security_context.namespace_options.CopyFrom(modes)
        config.MergeFrom(api_pb2.ContainerConfig(**fields))
        return config

    def create(self, command: Sequence[str] = SLEEP, **fields: Any) -> str:
        """Create a container."""
        return self.cri.create(self.id, self.order(command, **fields), self.config)

    def run(self, command: Sequence[str] = SLEEP, **fields: Any) -> str:
        """Create and start a container."""
        container = self.create(command, **fields)
        self.cri.start(container)
        return container

    def finish(self, command: Sequence[str], **fields: Any) -> api_pb2.ContainerStatus:
        """Run a container to its end."""
        return self.cri.wait_exit(self.run(command, **fields))

    def shell(self, script: str, **fields: Any) -> str:
        """Run a script as a container's process and give what it wrote to its log, without the log's prefixes."""
        status = self.finish(("sh", "-c", script), **fields)
        return "".join(line.partition(" ")[2] for line in log_texts(status.log_path))

    @property
    def containers(self) -> list[api_pb2.Container]:
        """The pod's containers."""
        wanted = api_pb2.ContainerFilter(pod_sandbox_id=self.id)
        return list(self.cri.runtime.ListContainers(api_pb2.ListContainersRequest(filter=wanted), timeout=10).containers)


def log_texts(path: str) -> list[str]:
    """Give the lines of a log without their times: "stdout F text\\n"; the stream and the tag are cut into one word."""
    with open(path, encoding="utf-8", errors="surrogateescape") as log:
        parts = [line.split(" ", 3) for line in log]
    return [f"{part[1]}/{part[2]} {part[3] if part[2] == 'F' else part[3].removesuffix(chr(10))}" for part in parts]


@dataclass(slots=True, kw_only=True)
class Subject:
    """The endpoint under judgement."""

    cri: Cri
    images: Cri
    image: str
    logs: Path
    cdi_dir: Path
    seen: Seen
    registry: Registry | None = None
    handler: str = ""
    cgroup_parent: str = ""
    name: str = ""
    version: str = ""
    made: list[str] = field(default_factory=list)

    @property
    def make(self) -> PodMaker:
        """Configurations whose logs lie in the suite's directory."""
        return PodMaker(logs=str(self.logs), labels={OWNER: "yes"})

    def adopt(self, config: api_pb2.PodSandboxConfig, pod: str) -> Pod:
        """Give the handle of a pod, which will be removed."""
        self.made.append(pod)
        return Pod(cri=self.cri, make=self.make, image=self.image, id=pod, config=config)

    def pod(self, *, network: bool = False, **fields: Any) -> api_pb2.PodSandboxConfig:
        """Make a pod's configuration: in the node's network, which is quicker, unless the test is about the pod's own."""
        return self.make.pod(host_network=not network, cgroup_parent=self.cgroup_parent, **fields)

    def run(self, *, network: bool = False, **fields: Any) -> Pod:
        """Run a pod."""
        return self.run_config(self.pod(network=network, **fields))

    def run_config(self, config: api_pb2.PodSandboxConfig) -> Pod:
        """Run a pod of a given configuration."""
        return self.adopt(config, self.cri.run_pod(config, self.handler))

    def clean(self) -> None:
        """Remove the pods that were adopted since the last time."""
        while self.made:
            with suppress(grpc.RpcError):
                self.cri.remove_pod(self.made.pop())

    def sweep(self) -> None:
        """Remove every pod that carries our label, whoever has lost it."""
        wanted = api_pb2.PodSandboxFilter(label_selector={OWNER: "yes"})
        for pod in self.cri.runtime.ListPodSandbox(api_pb2.ListPodSandboxRequest(filter=wanted), timeout=10).items:
            with suppress(grpc.RpcError):
                self.cri.remove_pod(pod.id)

    def pod_ids(self) -> set[str]:
        """Give the ids of all pods."""
        return {pod.id for pod in self.cri.pods()}

    def container_ids(self) -> set[str]:
        """Give the ids of all containers."""
        return {container.id for container in self.cri.containers()}


def cgroups(path: str) -> list[str]:
    """Give the directories of a cgroup in all hierarchies that have it; PATH or the name of a slice."""
    base = "/sys/fs/cgroup"
    name = path.lstrip("/")
    return [
        folder for folder in (f"{base}/{name}", *(f"{base}/{one}/{name}" for one in os.listdir(base))) if os.path.isdir(folder)
    ]


def refused(call: Callable[[], object], *codes: grpc.StatusCode) -> str:
    """Give the message of the refusal that `call` must meet, with one of the codes (any refusal when none is given)."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error = caught.value
    assert error.code() in (codes or REFUSALS), f"{error.code()}: {error.details()}"
    return str(error.details())


def wait_state(cri: Cri, container: str, state: int) -> api_pb2.ContainerStatus:
    """Wait until a container is in a state, and give its status."""

    def reached() -> api_pb2.ContainerStatus | None:
        status = cri.status(container)
        return status if status.state == state else None

    found = wait_for(reached, f"container {container[:12]} in state {state}", seconds=15)
    assert found is not None
    return found


def wait_log(path: str, text: str, count: int = 1) -> str:
    """Wait until a log has a text so many times, and give the log."""

    def written() -> str:
        if not os.path.exists(path):
            return ""
        with open(path, encoding="utf-8", errors="surrogateescape") as log:
            found = log.read()
        return found if found.count(text) >= count else ""

    return wait_for(written, f"{text!r} in {path}", seconds=15)
