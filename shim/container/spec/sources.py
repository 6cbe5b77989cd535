"""Look at the host paths that one ContainerConfig names: the effect behind HostSources."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from shim.container.spec import look
from shim.container.spec.devices import check_device
from shim.container.spec.host import DeviceNode, HostSources, MountSource, SourcePropagation
from shim.container.spec.mounts import PRIVATE
from shim.container.spec.security import LOCALHOST, PREFIX, seccomp_request
from shim.errors import InvalidArgument

if TYPE_CHECKING:
    from shim.gen.runtime.v1.api_pb2 import ContainerConfig


def gather_sources(config: ContainerConfig, *, unset_seccomp_profile: str = "") -> HostSources:
    """Resolve the host paths of mounts, devices and profiles; blocking (call it in a thread), creates nothing.

    A dead network file system can block it for as long as it is dead: `wanted`, `look.look` (in a job) and `sources_of` are
    its three steps. Raises InvalidArgument for a path that is not absolute, a device that is none and a profile that cannot
    be read, and FailedPrecondition for a path the host refuses. The caller creates `ensure_dirs` before the container is
    created.
    """
    return sources_of(look.look(wanted(config, unset_seccomp_profile)))


def wanted(config: ContainerConfig, unset_seccomp_profile: str = "", default_seccomp_profile: str = "") -> dict[str, Any]:
    """Give what `look.look` has to look at; pure. Raises InvalidArgument naming the field."""
    for index, mount in enumerate(config.mounts):
        _absolute(mount.host_path, f"mounts[{index}].host_path")
    for index, device in enumerate(config.devices):
        check_device(device, index)
    return {
        "mounts": [mount.host_path for mount in config.mounts],
        "propagation": any(mount.propagation != PRIVATE for mount in config.mounts),
        "devices": [device.host_path for device in config.devices],
        "node_devices": config.linux.security_context.privileged,
        "seccomp": _seccomp_path(config, unset_seccomp_profile, default_seccomp_profile),
    }


def sources_of(found: look.Found) -> HostSources:
    """Give the values of what `look.look` found; pure."""
    return HostSources(
        mounts=tuple(
            MountSource(**{**mount, "propagation": SourcePropagation(mount["propagation"])}) for mount in found["mounts"]
        ),
        devices=tuple(tuple(DeviceNode(**node) for node in nodes) for nodes in found["devices"]),
        host_devices=tuple(DeviceNode(**node) for node in found["host_devices"]),
        seccomp_profile=None if found["seccomp"] is None else base64.b64decode(found["seccomp"]),
        apparmor_profiles=frozenset(found["apparmor"]),
        ensure_dirs=tuple(found["missing"]),
    )


def _seccomp_path(config: ContainerConfig, unset: str, default: str) -> str:
    profile = seccomp_request(config.linux.security_context, unset, default)
    if profile is None or profile.profile_type != LOCALHOST:
        return ""
    path = profile.localhost_ref.removeprefix(PREFIX)
    _absolute(path, "linux.security_context.seccomp.localhost_ref")
    return path


def _absolute(path: str, field: str) -> None:
    if not path.startswith("/") or "\0" in path:
        raise InvalidArgument(f"{field} {path!r} is not an absolute path")
