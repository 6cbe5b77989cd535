"""The cgroup that holds all of a pod."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from runtime.errors import CgroupFault
from runtime.plan.systemd import unit_of
from shim.container.spec.paths import slice_name
from shim.errors import InvalidArgument

if TYPE_CHECKING:
    from shim.config import CgroupConfig
    from shim.gen.runtime.v1.api_pb2 import PodSandboxConfig

ROOT = "/sys/fs/cgroup"


def own_cgroup(config: CgroupConfig, pod: PodSandboxConfig, pod_id: str) -> str:
    """Give the cgroup that is made for the pod and removed with it; empty when kubelet names it and systemd is not asked."""
    scope = scope_of(config, pod, pod_id)
    if scope:
        return unit_of(scope, "").path
    return "" if pod.linux.cgroup_parent else f"{config.parent.rstrip('/')}/{pod_id}"


def scope_of(config: CgroupConfig, pod: PodSandboxConfig, pod_id: str) -> str:
    """Give the scope that holds the pod as slice:prefix:name; empty without systemd's driver.

    Of a parent like /a.slice/a-b.slice systemd needs only the last part, whose name says the way. Raises InvalidArgument for
    a parent that is no slice.
    """
    if config.driver != "systemd":
        return ""
    scope = f"{slice_name(pod.linux.cgroup_parent or config.slice)}:wherry:{pod_id}"
    try:
        unit_of(scope, "")
    except CgroupFault as fault:
        raise InvalidArgument(f"linux.cgroup_parent {pod.linux.cgroup_parent!r}: {fault.message}") from None
    return scope


def pod_cgroup(own: str, pod: PodSandboxConfig) -> str:
    """Give the path of the cgroup that holds the pod's containers: ours or kubelet's."""
    return own or pod.linux.cgroup_parent


def remove_cgroup(path: str, root: str = ROOT) -> None:
    """Remove the (empty) cgroup `path` from every hierarchy, with what is below it; busy ones stay."""
    if not path.strip("/"):
        return
    for hierarchy in _hierarchies(root):
        top = hierarchy + path
        if not os.path.isdir(top):
            continue
        for folder, _folders, _files in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def list_cgroups(parent: str, root: str = ROOT) -> set[str]:
    """Give the names of the cgroups directly below `parent`, in any hierarchy."""
    names: set[str] = set()
    for hierarchy in _hierarchies(root):
        with contextlib.suppress(OSError), os.scandir(hierarchy + parent) as entries:
            names.update(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    return names


def _hierarchies(root: str) -> list[str]:
    """Give the mount points below `root`: itself for cgroup v2, one a controller for v1, both for hybrid."""
    if os.path.exists(f"{root}/cgroup.procs"):
        return [root]
    try:
        return [entry.path for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
