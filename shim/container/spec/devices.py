"""Devices: nodes to make and the control group's rules about them."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from shim.container.spec.process import clean_path
from shim.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shim.container.spec.host import DeviceNode
    from shim.container.spec.inputs import SpecInputs
    from shim.gen.runtime.v1.api_pb2 import Device

Json = dict[str, Any]

DENY_ALL = {"allow": False, "access": "rwm"}
ALLOW_ALL = {"allow": True, "access": "rwm"}


def linux_devices(inputs: SpecInputs) -> tuple[list[Json], list[Json]]:
    """Give linux.devices and linux.resources.devices.

    Everything is denied, then what the CRI names is allowed; null, zero, full, random, urandom, tty, console, ptmx and pts
    come from the OCI runtime itself (config-linux.md, default devices). A privileged container gets the node's devices and
    may use all. A path named twice keeps its first meaning, the CRI's.
    """
    made: dict[str, Json] = {}
    rules = [DENY_ALL]
    for device, node, path in _asked(inputs):
        made.setdefault(path, _node(node, path, _owner(inputs, node)))
        rules.append({"allow": True, "type": node.kind, "major": node.major, "minor": node.minor, "access": device.permissions})
    if inputs.config.linux.security_context.privileged and not inputs.settings.privileged_without_host_devices:
        for node in inputs.sources.host_devices:
            made.setdefault(node.path, _node(node, node.path, (node.uid, node.gid)))
        rules = [ALLOW_ALL]
    return list(made.values()), rules


def _asked(inputs: SpecInputs) -> Iterator[tuple[Device, DeviceNode, str]]:
    for index, device in enumerate(inputs.config.devices):
        check_device(device, index)
        base = clean_path(device.container_path or device.host_path)
        for node in inputs.sources.devices[index]:
            yield device, node, posixpath.join(base, node.path) if node.path else base


def check_device(device: Device, index: int) -> None:
    """Raise InvalidArgument for a device whose paths or permissions cannot be served."""
    if not device.permissions or not set(device.permissions) <= set("rwm"):
        raise InvalidArgument(f"devices[{index}].permissions {device.permissions!r} is no combination of r, w and m")
    for field, path in (("host_path", device.host_path), ("container_path", device.container_path or "/")):
        if not path.startswith("/") or "\0" in path:
            raise InvalidArgument(f"devices[{index}].{field} {path!r} is not an absolute path")


def _owner(inputs: SpecInputs, node: DeviceNode) -> tuple[int, int]:
    if not inputs.settings.device_ownership_from_security_context:
        return node.uid, node.gid
    security = inputs.config.linux.security_context
    return security.run_as_user.value or node.uid, security.run_as_group.value or node.gid


def _node(node: DeviceNode, path: str, owner: tuple[int, int]) -> Json:
    uid, gid = owner
    return {
        "path": path,
        "type": node.kind,
        "major": node.major,
        "minor": node.minor,
        "fileMode": node.mode,
        "uid": uid,
        "gid": gid,
    }
