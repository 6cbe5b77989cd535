"""The kernel parameters of a pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shim.container.spec.inputs import SpecSettings
    from shim.gen.runtime.v1.api_pb2 import PodSandboxConfig


def pod_sysctls(pod: PodSandboxConfig, settings: SpecSettings) -> dict[str, str]:
    """Give the sysctls to set in the pod's namespaces (dotted name → value), the daemon's defaults included.

    Raises InvalidArgument for a name outside the pod's own namespaces or a value with control characters.
    """
    raise NotImplementedError
