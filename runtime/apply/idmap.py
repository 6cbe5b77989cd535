"""Id-mapped mounts: give a detached mount the maps of a user namespace (mount_setattr(2): MOUNT_ATTR_IDMAP)."""

from __future__ import annotations

import os
from errno import EINVAL

from runtime.apply.faults import Step
from runtime.errors import KernelFault
from runtime.kernel import mount as k
from runtime.kernel import userns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.plan.idmaps import IdMapPlan
    from runtime.plan.namespaces import NamespacePlan


class IdMaps:
    """The user namespaces the id-mapped mounts of one container need, each made once. Use it with `close`."""

    __slots__ = ("_made", "_namespaces", "_user_fd")

    def __init__(self, namespaces: NamespacePlan, user_fd: int) -> None:
        self._namespaces = namespaces
        self._user_fd = user_fd
        self._made: dict[tuple[str, str], int] = {}

    def close(self) -> None:
        """Let go of the namespaces; the mounts keep what they need."""
        for fd in self._made.values():
            os.close(fd)
        self._made.clear()

    def _namespace(self, maps: tuple[str, str]) -> int:
        if maps not in self._made:
            with Step("make a user namespace for an id-mapped mount"):
                self._made[maps] = userns.make(*maps)
        return self._made[maps]

    def prepare(self, plan: IdMapPlan) -> None:
        """Make the namespace a plan needs, for a caller about to leave this process's place."""
        if plan.uid_map:
            self._namespace((plan.uid_map, plan.gid_map))

    def apply(self, fd: int, plan: IdMapPlan, path: str) -> None:
        """Map the ids of a detached mount; raise KernelFault for a file system that cannot."""
        own = self._namespace((plan.uid_map, plan.gid_map)) if plan.uid_map else self._user_fd
        map_ids(fd, own, path, recursive=plan.recursive)

    def of_container(self) -> int:
        """Give a namespace with the container's own maps."""
        if self._user_fd >= 0:
            return self._user_fd
        return self._namespace((self._namespaces.uid_map, self._namespaces.gid_map))

    def root_ids(self) -> tuple[int, int]:
        """Give the host's uid and gid of the container's root; raise OSError."""
        maps = (self._namespaces.uid_map, self._namespaces.gid_map)
        if self._user_fd >= 0:
            maps = userns.maps(self._user_fd)
        return _first_host_id(maps[0]), _first_host_id(maps[1])


def _first_host_id(text: str) -> int:
    for line in text.splitlines():
        inside, outside, _ = line.split()
        if inside == "0":
            return int(outside)
    return -1  # chown(2): leave it


def map_ids(fd: int, namespace_fd: int, path: str, *, recursive: bool = False) -> None:
    """Give a detached mount the maps of a user namespace; raise KernelFault when its file system cannot have them."""
    with Step(f"map the ids of the mount of {path}", path):
        try:
            k.mount_setattr(fd, k.Attributes(k.MOUNT_ATTR_IDMAP, userns_fd=namespace_fd), recursive=recursive)
        except OSError as error:
            if error.errno != EINVAL:
                raise
            raise KernelFault(
                "its file system does not support id-mapped mounts, or they are below one already",
                feature="idmapped mounts",
                step=f"map the ids of the mount of {path}",
                errno=error.errno,
                path=path,
            ) from error
