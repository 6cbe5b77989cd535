"""Look at the host paths that one ContainerConfig names: the effect behind HostSources."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from shim.container.spec.devices import check_device
from shim.container.spec.host import DeviceNode, HostSources, MountSource, SourcePropagation
from shim.container.spec.mountinfo import propagation_of
from shim.container.spec.mounts import PRIVATE
from shim.container.spec.regular import read_regular
from shim.container.spec.seccomp_profile import LIMIT
from shim.container.spec.security import LOCALHOST, PREFIX, seccomp_request
from shim.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shim.gen.runtime.v1.api_pb2 import ContainerConfig, Mount

MOUNTINFO = "/proc/self/mountinfo"
APPARMOR_PROFILES = "/sys/kernel/security/apparmor/profiles"
SKIPPED = frozenset(("pts", "shm", "fd", "mqueue", "console", ".lxc", ".lxd-mounts", ".udev"))  # /dev of the node's own
MOST_DEVICES = 4096


def gather_sources(config: ContainerConfig, *, unset_seccomp_profile: str = "") -> HostSources:
    """Resolve the host paths of mounts, devices and profiles; blocking (call it in a thread), creates nothing.

    A dead network file system can block it for as long as it is dead. Raises InvalidArgument for a path that is not absolute,
    a device that is none and a profile that cannot be read, and FailedPrecondition for a path the host refuses. The caller
    creates `ensure_dirs` before the container is created.
    """
    table = _mountinfo(config)
    missing: list[str] = []
    mounts = tuple(_mount(mount, index, table, missing) for index, mount in enumerate(config.mounts))
    security = config.linux.security_context
    return HostSources(
        mounts=mounts,
        devices=tuple(_devices(config, index) for index in range(len(config.devices))),
        host_devices=tuple(_scan("/dev", "/dev")) if security.privileged else (),
        seccomp_profile=_seccomp_profile(config, unset_seccomp_profile),
        apparmor_profiles=_apparmor_profiles(),
        ensure_dirs=tuple(missing),
    )


def _mountinfo(config: ContainerConfig) -> str:
    if all(mount.propagation == PRIVATE for mount in config.mounts):
        return ""
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _mount(mount: Mount, index: int, table: str, missing: list[str]) -> MountSource:
    """Resolve one mount's host path; what does not exist is to become a directory, as kubelet's hostPath "" expects."""
    path = mount.host_path
    if not path.startswith("/") or "\0" in path:
        raise InvalidArgument(f"mounts[{index}].host_path {path!r} is not an absolute path")
    resolved = os.path.realpath(path)
    is_dir = True
    try:
        is_dir = stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        if os.path.islink(path):
            raise FailedPrecondition(f"mounts[{index}].host_path {path!r} is a symbolic link to nothing") from None
        missing.append(resolved)
    except OSError as error:
        raise FailedPrecondition(f"mounts[{index}].host_path {path!r} cannot be looked at: {error.strerror}") from error
    point, kind = propagation_of(table, resolved) if table else ("/", SourcePropagation.PRIVATE)
    return MountSource(path=resolved, is_dir=is_dir, propagation=kind, mountpoint=point)


def _devices(config: ContainerConfig, index: int) -> tuple[DeviceNode, ...]:
    device = config.devices[index]
    check_device(device, index)
    resolved = os.path.realpath(device.host_path)
    try:
        status = os.lstat(resolved)
    except OSError as error:
        raise InvalidArgument(f"devices[{index}].host_path {device.host_path!r}: {error.strerror}") from error
    nodes = tuple(_scan(resolved, "") if stat.S_ISDIR(status.st_mode) else _node("", status))
    if not nodes:
        raise InvalidArgument(f"devices[{index}].host_path {device.host_path!r} is not a device and holds none")
    return nodes


def _scan(directory: str, name: str) -> Iterator[DeviceNode]:
    """Give the devices below `directory`, their paths starting with `name`; links and the node's own mounts are passed over."""
    count = 0
    pending = [(directory, name)]
    while pending:
        path, prefix = pending.pop()
        for entry in _entries(path):
            label = f"{prefix}/{entry.name}" if prefix else entry.name
            if entry.is_dir(follow_symlinks=False):
                pending.append((entry.path, label))
                continue
            for node in _entry_node(entry, label):
                count += 1
                if count > MOST_DEVICES:
                    raise InvalidArgument(f"{directory!r} holds more than {MOST_DEVICES} devices")
                yield node


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted((entry for entry in entries if entry.name not in SKIPPED), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []  # gone between the listing and now
    except OSError as error:
        raise FailedPrecondition(f"devices of {path!r} cannot be listed: {error.strerror}") from error


def _entry_node(entry: os.DirEntry[str], label: str) -> list[DeviceNode]:
    try:
        return _node(label, entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return []


def _node(label: str, status: os.stat_result) -> list[DeviceNode]:
    """Give the node, or nothing for what is no device: fifos and sockets in /dev are not."""
    if stat.S_ISCHR(status.st_mode):
        kind = "c"
    elif stat.S_ISBLK(status.st_mode):
        kind = "b"
    else:
        return []
    return [
        DeviceNode(
            path=label,
            kind=kind,
            major=os.major(status.st_rdev),
            minor=os.minor(status.st_rdev),
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
        )
    ]


def _seccomp_profile(config: ContainerConfig, unset: str) -> bytes | None:
    """Read the Localhost profile: an absolute path, a regular file, bounded."""
    profile = seccomp_request(config.linux.security_context, unset)
    if profile is None or profile.profile_type != LOCALHOST:
        return None
    path = profile.localhost_ref.removeprefix(PREFIX)
    field = f"linux.security_context.seccomp.localhost_ref {path!r}"
    if not path.startswith("/") or "\0" in path:
        raise InvalidArgument(f"{field} is not an absolute path")
    try:
        data = read_regular(path, LIMIT, follow=True)
    except OSError as error:
        raise InvalidArgument(f"{field} cannot be opened: {error.strerror}") from error
    if data is None:
        raise InvalidArgument(f"{field} is not a regular file")
    return data


def _apparmor_profiles() -> frozenset[str]:
    """Read the names of loaded profiles, lines like "name (enforce)"; none where AppArmor is off."""
    try:
        with open(APPARMOR_PROFILES, encoding="utf-8", errors="surrogateescape") as file:
            return frozenset(line.rpartition(" (")[0] for line in file)
    except OSError:
        return frozenset()
