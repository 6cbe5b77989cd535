"""Overlays before Linux 6.15, where a layer counts only if it is mounted where the overlay is made.

An id-mapped layer, or an empty one, is a mount of its own, which nothing on the host should ever see. So a child makes the
overlay, in a mount namespace of its own where each layer is covered with its id-mapped self: these mounts are gone with the
child, however it ends. What overlayfs keeps are clones of its own, and the overlay comes out by descriptor.
"""

from __future__ import annotations

import os
from errno import EINVAL

from runtime.apply.faults import Step
from runtime.apply.idmap import map_ids
from runtime.errors import KernelFault, RuntimeFault
from runtime.kernel import mount as k
from runtime.kernel.fork import fork
from runtime.kernel.namespace import CLONE_NEWNS, unshare
from runtime.launch.guarded import guarded
from runtime.launch.protocol import MOUNTED, make_links
from runtime.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.request import RootfsMount

_STEP = "mount the root overlay"


def mount_covered_overlay(request: RootfsMount, namespace_fd: int = -1) -> int:
    """Give the detached overlay of layers seen with the ids of a user namespace; its upper directory is given away already.

    Raises KernelFault where overlayfs takes no id-mapped layers at all (before Linux 5.19), RuntimeFault.
    """
    ours, theirs = make_links()
    try:
        with Step(_STEP):
            pid = fork()
        if pid == 0:
            ours.close()
            guarded(theirs, lambda: theirs.send_fd(MOUNTED, _mount(request, namespace_fd)))
        theirs.close()
        try:
            return ours.receive_fd(MOUNTED)
        except RuntimeFault as error:
            raise _named(error, request) if namespace_fd >= 0 else error from error
        finally:
            os.waitpid(pid, 0)
    finally:
        ours.close()
        theirs.close()


def _named(error: RuntimeFault, request: RootfsMount) -> RuntimeFault:
    if error.errno != EINVAL or error.message:
        return error
    detail = "overlayfs refuses layers with mapped ids, which it takes since Linux 5.19"
    return KernelFault(detail, feature="idmapped overlay layers", step=_STEP, errno=EINVAL, path=request.lower[0])


def _mount(request: RootfsMount, namespace_fd: int) -> int:
    from runtime.apply.mounts import mount_overlay

    with Step("make a mount namespace for the layers"):
        unshare(CLONE_NEWNS)
        k.mount("", "/", "", k.MS_REC | k.MS_SLAVE)
    covers = [_clone(folder, namespace_fd) for folder in request.lower]
    nothing: tuple[str, ...] = ()
    if len(covers) == 1 and not request.upper:  # overlayfs wants two layers when there is no upper one
        empty = k.fsmount(k.fsopen("tmpfs"))
        _attach(empty, request.lower[0])
        nothing = (f"/proc/self/fd/{empty}",)
    for fd, folder in zip(covers, request.lower, strict=True):
        _attach(fd, folder)
    return mount_overlay(replace(request, lower=(*request.lower, *nothing)))


def _clone(folder: str, namespace_fd: int) -> int:
    """Give what lies at `folder` as a detached mount, id-mapped unless there is no namespace."""
    with Step(_STEP, folder):
        fd = k.open_tree(folder)
        if namespace_fd >= 0:
            map_ids(fd, namespace_fd, folder)
        return fd


def _attach(fd: int, folder: str) -> None:
    """Mount the detached `fd` on top of all that is at `folder`."""
    with Step(_STEP, folder):
        place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        k.move_mount(fd, place, path=folder)
        os.close(place)
