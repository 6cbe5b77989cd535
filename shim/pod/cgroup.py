"""The pod-level cgroup of pods that come without a parent."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shim.config import CgroupConfig
    from shim.gen.runtime.v1.api_pb2 import PodSandboxConfig

ROOT = "/sys/fs/cgroup"


def own_cgroup(config: CgroupConfig, pod: PodSandboxConfig, pod_id: str) -> str:
    """Give the cgroup that we make and remove for the pod; empty when kubelet names a parent or systemd makes them."""
    if pod.linux.cgroup_parent or config.driver == "systemd":
        return ""
    return f"{config.parent.rstrip('/')}/{pod_id}"


def default_parent(config: CgroupConfig, own: str) -> str:
    """Give the parent for containers of a pod that names none."""
    return config.slice if config.driver == "systemd" else own


def pod_cgroup(config: CgroupConfig, own: str, pod: PodSandboxConfig) -> str:
    """Give the path of the cgroup that holds the pod's containers: ours, kubelet's, or the slice they are put into."""
    return own or pod.linux.cgroup_parent or config.slice


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
