"""The overlay of a container with a user namespace: layers keep the image's ids on disk and show the container's.

overlayfs cannot be id-mapped itself, its lower layers can (Linux 5.19). What the container writes goes to the upper directory
with the ids it has on the host, so only that directory itself is given to the container's root.
"""

from __future__ import annotations

import os
from errno import EINVAL, EOPNOTSUPP

from runtime.apply.faults import Step
from runtime.apply.idmap import IdMaps, map_ids
from runtime.apply.mounts import make_overlay, set_options
from runtime.errors import RuntimeFault
from runtime.kernel import mount as k

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.request import RootfsMount

_STEP = "mount the root overlay with mapped ids"
_NOT_TAKEN = (EINVAL, EOPNOTSUPP)
"""What Linux 6.5 and 6.13, and those before 6.5, say of a layer told by descriptor."""


def mount_mapped_overlay(request: RootfsMount, id_maps: IdMaps) -> int:
    """Give the detached overlay; raise KernelFault where overlayfs takes no id-mapped layers, RuntimeFault."""
    namespace = id_maps.of_container()
    with Step(_STEP, request.upper):
        if request.upper and request.work:
            os.chown(request.upper, *id_maps.root_ids())
    fd = _from_descriptors(request, namespace)
    if fd is not None:
        return fd
    from runtime.apply.coveredlayers import mount_covered_overlay

    return mount_covered_overlay(request, namespace)


def _from_descriptors(request: RootfsMount, namespace_fd: int) -> int | None:
    """Give the overlay of layers told by descriptor; None where none is taken that is not mounted (before Linux 6.15)."""
    with Step(_STEP):
        context = k.fsopen("overlay")
        layers = []
        try:
            k.fsconfig_string(context, "source", "overlay")
            for folder in request.lower:
                layers.append(_mapped(folder, namespace_fd))
                k.fsconfig_fd(context, "lowerdir+", layers[-1])
            if request.upper and request.work:
                k.fsconfig_string(context, "upperdir", request.upper)
                k.fsconfig_string(context, "workdir", request.work)
            elif len(layers) == 1:
                layers.append(k.fsmount(k.fsopen("tmpfs")))  # overlayfs wants two layers when there is no upper one
                k.fsconfig_fd(context, "lowerdir+", layers[-1])
            set_options(context, request.options)
            return make_overlay(context, request)
        except OSError as error:
            if error.errno in _NOT_TAKEN:
                return None
            raise RuntimeFault(k.messages(context), step=_STEP, errno=error.errno, path=request.lower[0]) from error
        finally:
            for fd in (*layers, context):
                os.close(fd)


def _mapped(folder: str, namespace_fd: int) -> int:
    fd = k.open_tree(folder)
    try:
        map_ids(fd, namespace_fd, folder)
    except BaseException:
        os.close(fd)
        raise
    return fd
