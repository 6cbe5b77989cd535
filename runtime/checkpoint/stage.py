"""The stage criu restores from: a mount namespace of its own with the root and every source laid out.

criu's process builds it before criu is executed, so that nothing is ever mounted where others can see it, and the kernel
takes it down when criu ends. The state directory of the container is covered by a tmpfs that holds the mount points.
"""

from __future__ import annotations

import os
import stat

from runtime.apply.faults import Step
from runtime.apply.mounts import new_filesystem
from runtime.apply.paths import RootPaths
from runtime.errors import RuntimeFault
from runtime.kernel import mount as k
from runtime.kernel.namespace import CLONE_NEWNS, unshare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.plan.mounts import MountPlan

_O_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Stage:
    """Where things are on the stage. `folder` is the container's state directory."""

    def __init__(self, folder: str) -> None:
        self.folder = os.path.realpath(folder)

    @property
    def root(self) -> str:
        """Give the mount of the root file system."""
        return f"{self.folder}/root"

    def source(self, index: int) -> str:
        """Give the mount of the source of a bind, by the index of its plan."""
        return f"{self.folder}/{index}"


def build(stage: Stage, root_mount: int, plans: tuple[MountPlan, ...], sources: dict[int, int]) -> None:
    """Build the stage in this process; `root_mount` and `sources` are detached mounts. Raises RuntimeFault."""
    with Step("make a mount namespace for criu"):
        unshare(CLONE_NEWNS)
        host = os.open("/", _O_DIRECTORY)
        k.mount_setattr(host, k.Attributes(propagation=k.MS_SLAVE), recursive=True)
        os.close(host)
    with Step("lay out what criu restores from", stage.folder):
        _attach(new_filesystem("tmpfs", "tmpfs", ("mode=0700",)), stage.folder)
        os.mkdir(stage.root, 0o700)
        _attach(root_mount, stage.root)
        for index, fd in sources.items():
            _place(fd, stage.source(index))
    _make_mount_points(stage, plans, frozenset(sources))


def _attach(fd: int, path: str) -> None:
    target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        k.move_mount(fd, target, path=path)
    finally:
        os.close(target)


def _place(fd: int, path: str) -> None:
    mode = os.fstat(fd).st_mode
    if stat.S_ISLNK(mode):
        raise RuntimeFault("a symbolic link cannot be bound", step="lay out what criu restores from", path=path)
    if stat.S_ISDIR(mode):
        os.mkdir(path, 0o700)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    _attach(fd, path)


def _make_mount_points(stage: Stage, plans: tuple[MountPlan, ...], bound: frozenset[int]) -> None:
    """Make every place the container's mounts need, also those inside other binds, as a creation does.

    Each mount is stood in for while that goes on, a bind by itself and a file system by an empty one, so that what belongs
    into a mount is not made below it.
    """
    paths = RootPaths(os.open(stage.root, _O_DIRECTORY))
    done: list[str] = []
    try:
        for index, plan in enumerate(plans):
            if plan.kind == "remount":
                continue
            with Step(f"make the place of {plan.destination}", plan.destination):
                done.append(_stand_in(paths, plan, stage.source(index) if index in bound else ""))
    finally:
        for place in reversed(done):
            k.umount2(place, k.MNT_DETACH)
        os.close(paths.root_fd)


def _stand_in(paths: RootPaths, plan: MountPlan, source: str) -> str:
    if source:
        fd = k.open_tree(source, recursive=True)
        k.mount_setattr(fd, k.Attributes(propagation=k.MS_PRIVATE), recursive=True)
        folder = stat.S_ISDIR(os.fstat(fd).st_mode)
    else:
        fd, folder = new_filesystem("tmpfs", "tmpfs", ()), True
    target = paths.target(plan.destination, is_directory=folder, plain=plan.kind == "bind" and not plan.follow_destination)
    try:
        place = os.readlink(f"/proc/self/fd/{target}")
        k.move_mount(fd, target, path=plan.destination)
    finally:
        os.close(target)
        os.close(fd)
    return place
