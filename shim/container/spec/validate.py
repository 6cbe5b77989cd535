"""Refuse requests that contradict themselves, naming the field."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shim.gen.runtime.v1.api_pb2 import ContainerConfig, PodSandboxConfig


def validate_pod(pod: PodSandboxConfig) -> None:
    """Raise InvalidArgument naming the first field of a RunPodSandboxRequest's config that cannot be served."""
    raise NotImplementedError


def validate_container(config: ContainerConfig, pod: PodSandboxConfig) -> None:
    """Raise InvalidArgument (Unimplemented for what is not served yet) naming the field, for a config in its pod."""
    raise NotImplementedError
