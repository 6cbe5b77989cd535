"""Show a container its own cgroup: a cgroup2 mount, or a tmpfs with one bind mount a v1 hierarchy."""

from __future__ import annotations

import os

from runtime.apply.faults import Step
from runtime.apply.mounts import new_filesystem
from runtime.errors import KernelFault
from runtime.kernel import mount as k

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.apply.mounts import Mounter
    from runtime.plan.mounts import MountPlan
    from runtime.spec.lasting import Pairs

_TMPFS = ("mode=755", "size=64k")


def mount_cgroup(mounter: Mounter, plan: MountPlan, folders: Pairs, *, has_namespace: bool) -> None:
    """Mount at the plan's destination what `folders` (hierarchy key -> directory; "" is v2) says the container has."""
    with Step(f"mount the cgroup file system on {plan.destination}", plan.destination):
        by_key = dict(folders)
        if not by_key:
            raise KernelFault("this host has no cgroup hierarchy", feature="cgroup", step=f"mount {plan.destination}")
        if list(by_key) == [""]:
            _unified(mounter, plan, by_key[""], has_namespace=has_namespace)
        else:
            _legacy(mounter, plan, by_key)


def _unified(mounter: Mounter, plan: MountPlan, folder: str, *, has_namespace: bool) -> None:
    if has_namespace:
        fd = new_filesystem("cgroup2", "cgroup", plan.data, plan.change.set)
    else:
        fd = k.open_tree(folder)
        k.mount_setattr(fd, k.Attributes(plan.change.set, propagation=k.MS_PRIVATE))
    mounter.attach(fd, plan.destination, is_directory=True)


def _legacy(mounter: Mounter, plan: MountPlan, folders: dict[str, str]) -> None:
    """Bind each hierarchy's directory below a tmpfs, and link the controllers that are mounted together.

    A bind of the own directory is what a mount inside a cgroup namespace shows too, so both cases are one. The v2
    hierarchy of a hybrid host is left out, as runc does: programs take any cgroup2 mount for the sign of a v2 host.
    """
    attributes = plan.change.set & ~k.MOUNT_ATTR_RDONLY
    data = tuple(option for option in plan.data if option.startswith(("mode=", "size="))) or _TMPFS
    mounter.attach(new_filesystem("tmpfs", "tmpfs", data, attributes), plan.destination, is_directory=True)
    top = mounter.paths.open(plan.destination)
    try:
        for key, folder in folders.items():
            if key:
                _bind_hierarchy(top, key.removeprefix("name="), folder, plan.change.set)
        if plan.change.set & k.MOUNT_ATTR_RDONLY:
            k.mount_setattr(top, k.Attributes(k.MOUNT_ATTR_RDONLY))
    finally:
        os.close(top)


def _bind_hierarchy(top: int, name: str, folder: str, attributes: int) -> None:
    """Bind a hierarchy's directory below the tmpfs, which nobody else has seen yet: its names are what was made here."""
    os.mkdir(name, 0o755, dir_fd=top)
    fd = k.open_tree(folder)
    k.mount_setattr(fd, k.Attributes(attributes, propagation=k.MS_PRIVATE))
    place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    k.move_mount(fd, place, path=name)
    os.close(place)
    os.close(fd)
    if "," in name:
        for controller in name.split(","):
            os.symlink(name, controller, dir_fd=top)
