"""Paths that are composed from what a client says: logs and control groups."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from shim.errors import InvalidArgument

if TYPE_CHECKING:
    from shim.container.spec.inputs import SpecSettings
    from shim.gen.runtime.v1.api_pb2 import ContainerConfig, PodSandboxConfig

# systemd.unit(5) allows these and ":-_.\\" in names; ":" separates the parts of a cgroupsPath and "\\" escapes.
SLICE_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.\\@")


def container_log_path(config: ContainerConfig, pod: PodSandboxConfig) -> str:
    """Give the absolute path of the container's log, "" when it has none.

    Raises InvalidArgument when log_directory is relative or log_path leaves it.
    """
    directory, name = pod.log_directory, config.log_path
    if not directory or not name:
        return ""
    if not directory.startswith("/") or "\0" in directory:
        raise InvalidArgument(f"log_directory {directory!r} is not an absolute path")
    path = posixpath.normpath(posixpath.join(directory, name))
    if name.startswith("/") or "\0" in name or not path.startswith(log_directory(pod).rstrip("/") + "/"):
        raise InvalidArgument(f"log_path {name!r} leaves the pod's log_directory {directory!r}")
    return path


def log_directory(pod: PodSandboxConfig) -> str:
    """Give the pod's log directory, the beginning of every `container_log_path` in it; "" when it has none."""
    return posixpath.normpath(pod.log_directory) if pod.log_directory else ""


def cgroups_path(pod: PodSandboxConfig, container_id: str, settings: SpecSettings) -> str:
    """Give the spec's cgroupsPath: the container's id below the cgroup of its pod.

    Raises InvalidArgument for a parent that would reach elsewhere.
    """
    parent = settings.pod_cgroup or pod.linux.cgroup_parent
    if not parent:
        return f"/wherry-{container_id}"
    _check_cgroup_parent(parent)
    return posixpath.join(posixpath.normpath(parent), container_id)


def check_cgroup_parent(parent: str) -> None:
    """Raise InvalidArgument for a cgroup parent that no driver could take."""
    if parent:
        _check_cgroup_parent(parent)


def _check_cgroup_parent(parent: str) -> None:
    if ".." in parent.split("/") or any(character < " " or character == "\x7f" for character in parent):
        raise InvalidArgument(f"linux.cgroup_parent {parent!r} holds '..' or a control character")


def slice_name(parent: str) -> str:
    """Give the name of the slice a cgroup parent for the systemd driver ends in; raise InvalidArgument for any other."""
    _check_cgroup_parent(parent)
    unit = posixpath.basename(parent.rstrip("/"))
    if not unit.endswith(".slice") or not set(unit) <= SLICE_CHARACTERS:
        raise InvalidArgument(
            f"linux.cgroup_parent {parent!r} does not end in the name of a slice, which the systemd driver needs"
        )
    return unit
