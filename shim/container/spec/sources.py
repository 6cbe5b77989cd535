"""Look at the host paths that one ContainerConfig names: the effect behind HostSources."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shim.container.spec.host import HostSources
    from shim.gen.runtime.v1.api_pb2 import ContainerConfig


def gather_sources(config: ContainerConfig, *, unset_seccomp_profile: str = "") -> HostSources:
    """Resolve the host paths of mounts, devices and profiles; blocking (call it in a thread), creates nothing.

    Raises InvalidArgument for a path that is not absolute, a device that is none and a profile that cannot be read, and
    FailedPrecondition for a path the host refuses. The caller creates `ensure_dirs` before the container is created.
    """
    raise NotImplementedError
