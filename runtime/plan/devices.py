"""Device nodes and links of a container's /dev: the default ones every container has, and those of linux.devices."""

from __future__ import annotations

import os
import stat

from runtime.errors import SpecFault
from runtime.record import Record
from runtime.spec.model import Device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.plan.mounts import MountPlan

_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
_DEFAULT_MODE = 0o666

DEFAULT_DEVICES = tuple(
    Device(type="c", path=f"/dev/{name}", major=major, minor=minor, file_mode=_DEFAULT_MODE, uid=0, gid=0)
    for name, major, minor in (
        ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
    )
)  # fmt: skip
LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
)
_PTMX = ("/dev/ptmx", os.makedev(5, 2))
"""What is always the link to the container's own devpts: the host's node, bound, finds none (config-linux.md)."""


class NodePlan(Record):
    """One node: `mode` includes the file type, `device` is the number makedev(3) gives."""

    path: str
    mode: int
    device: int
    uid: int = 0
    gid: int = 0


class DevicePlan(Record):
    """All nodes and links; empty when the caller brings a whole /dev of its own."""

    nodes: tuple[NodePlan, ...] = ()
    links: tuple[tuple[str, str], ...] = ()


def plan_devices(devices: tuple[Device, ...], mounts: tuple[MountPlan, ...]) -> DevicePlan:
    """Decide the nodes; one of linux.devices replaces a default one of the same path, but ptmx. Raises SpecFault."""
    if any(mount.destination == "/dev" and mount.kind == "bind" for mount in mounts):
        return DevicePlan()
    by_path = {device.path: _node(device, "") for device in DEFAULT_DEVICES}
    for at, device in enumerate(devices):
        node = _node(device, f"/linux/devices/{at}")
        if (node.path, node.device) != _PTMX:
            by_path[node.path] = node
    links = tuple(link for link in LINKS if link[0] not in by_path)
    return DevicePlan(nodes=tuple(by_path.values()), links=links)


def _node(device: Device, pointer: str) -> NodePlan:
    kind = _KINDS.get(device.type)
    if kind is None:
        raise SpecFault(f"unknown device type {device.type!r}", pointer=f"{pointer}/type")
    path = os.path.normpath("/" + device.path.lstrip("/"))
    permissions = _DEFAULT_MODE if device.file_mode is None else device.file_mode & 0o7777
    return NodePlan(
        path=path,
        mode=kind | permissions,
        device=os.makedev(device.major, device.minor) if kind != stat.S_IFIFO else 0,
        uid=device.uid or 0,
        gid=device.gid or 0,
    )
