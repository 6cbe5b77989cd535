"""Which host directories get a container's SELinux label before it starts, and which never may; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shim.container.spec.security import selinux_labels
from shim.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.container.spec.inputs import SpecInputs

_SYSTEM = frozenset((
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/libx32", "/media", "/mnt", "/opt", "/proc",
    "/root", "/run", "/sbin", "/srv", "/sys", "/usr", "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/libexec", "/usr/local",
    "/usr/sbin", "/usr/share", "/var", "/var/cache", "/var/lib", "/var/log", "/var/run", "/var/spool",
    "/tmp", "/var/tmp",  # noqa: S108 - not places for our files
))  # fmt: skip
_SYSTEM_TREES = ("/boot/", "/dev/", "/etc/", "/proc/", "/sys/")
"""What lies below these is the system's own too."""
_UNCONFINED_TYPE = "spc_t"
"""A container of this type may use files of any label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relabelling:
    """Trees to label, and for each the CRI field that asks for it ("" for what is the pod's own)."""

    label: str = ""
    trees: Mapping[str, str]


def relabelling(inputs: SpecInputs) -> Relabelling:
    """Give the sources of mounts with selinux_relabel, the pod's files and the image's volumes; nothing without SELinux.

    A privileged container and one of type spc_t need no labels, and must not take the ones away that others need. Raises
    InvalidArgument for a directory of the system: with a container's label the node's services could not read it.
    """
    process, label = selinux_labels(inputs)
    if not process or process.split(":")[2] == _UNCONFINED_TYPE:
        return Relabelling(trees={})
    files = inputs.pod_files
    own = [files.hostname, files.hosts, files.resolv_conf, files.shm, *inputs.image_volumes.values()]
    trees = {path: "" for path in own if path and not _is_system(path)}
    for index, mount in enumerate(inputs.config.mounts):
        if not mount.selinux_relabel or index in inputs.image_mounts:
            continue
        path = inputs.sources.mounts[index].path
        field = f"mounts[{index}].selinux_relabel"
        if _is_system(path):
            raise InvalidArgument(f"{field}: {path} is the system's own and keeps its label; mount a directory of its own")
        trees[path] = field
    return Relabelling(label=label, trees=trees)


def _is_system(path: str) -> bool:
    return path in _SYSTEM or path.startswith(_SYSTEM_TREES)
