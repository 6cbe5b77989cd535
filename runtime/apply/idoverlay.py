"""The overlay of a container with a user namespace: layers keep the image's ids on disk and show the container's.

overlayfs cannot be id-mapped itself, its lower layers can (Linux 5.19). What the container writes goes to the upper directory
with the ids it has on the host, so only that directory itself is given to the container's root.
"""

from __future__ import annotations

import os
from errno import EINVAL

from runtime.apply.faults import Step
from runtime.apply.idmap import IdMaps, map_ids
from runtime.apply.mounts import make_overlay, set_options
from runtime.errors import KernelFault, RuntimeFault
from runtime.kernel import mount as k

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.request import RootfsMount

_STEP = "mount the root overlay with mapped ids"


def mount_mapped_overlay(request: RootfsMount, id_maps: IdMaps) -> int:
    """Give the detached overlay; raise KernelFault where the kernel takes no detached layers (Linux 6.15)."""
    with Step(_STEP):
        context = k.fsopen("overlay")
        layers = []
        try:
            k.fsconfig_string(context, "source", "overlay")
            for folder in request.lower:
                layers.append(_mapped(folder, id_maps.of_container()))
                k.fsconfig_fd(context, "lowerdir+", layers[-1])
            if request.upper and request.work:
                os.chown(request.upper, *id_maps.root_ids())
                k.fsconfig_string(context, "upperdir", request.upper)
                k.fsconfig_string(context, "workdir", request.work)
            elif len(layers) == 1:
                layers.append(k.fsmount(k.fsopen("tmpfs")))  # overlayfs wants two layers when there is no upper one
                k.fsconfig_fd(context, "lowerdir+", layers[-1])
            set_options(context, request.options)
            return make_overlay(context, request)
        except OSError as error:
            raise _refused(context, error, request.lower[0]) from error
        finally:
            for fd in (*layers, context):
                os.close(fd)


def _refused(context: int, error: OSError, path: str) -> RuntimeFault:
    said = k.messages(context)
    if error.errno == EINVAL:
        detail = f"this kernel takes no detached id-mapped layers ({said or 'invalid argument'}): Linux 6.15 does"
        return KernelFault(detail, feature="idmapped overlay layers", step=_STEP, errno=error.errno, path=path)
    return RuntimeFault(said, step=_STEP, errno=error.errno, path=path)


def _mapped(folder: str, namespace_fd: int) -> int:
    fd = k.open_tree(folder)
    try:
        map_ids(fd, namespace_fd, folder)
    except BaseException:
        os.close(fd)
        raise
    return fd
