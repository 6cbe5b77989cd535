"""The overlay of a container's layers before Linux 6.5, which has no `lowerdir+` and says so only when all is configured.

There a configured value has 255 characters at most, so the layers are named by their descriptors' numbers alone, looked up in
/proc/self/fd as the working directory.
"""

from __future__ import annotations

import os

from runtime.apply.mounts import make_overlay, set_options
from runtime.errors import KernelFault, RuntimeFault
from runtime.kernel import mount as k

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.request import RootfsMount

_VALUE_LIMIT = 255
_STEP = "mount the root overlay"


def mount_old_overlay(request: RootfsMount) -> int:
    """Give the detached overlay; raise KernelFault for more layers than such a kernel takes, RuntimeFault."""
    opened: list[int] = []
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    context = k.fsopen("overlay")
    try:
        own = (request.upper, request.work) if request.upper and request.work else ()
        opened.extend(os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for folder in (*request.lower, *own))
        names = [str(fd) for fd in opened]
        layers = ":".join(names[: len(request.lower)])
        if len(layers) > _VALUE_LIMIT:
            raise KernelFault(f"{len(request.lower)} layers are too many before Linux 6.5", feature="lowerdir+", step=_STEP)
        os.chdir("/proc/self/fd")
        k.fsconfig_string(context, "source", "overlay")
        k.fsconfig_string(context, "lowerdir", layers)
        for key, name in zip(("upperdir", "workdir"), names[len(request.lower) :], strict=False):
            k.fsconfig_string(context, key, name)
        set_options(context, request.options)
        return make_overlay(context, request)
    except OSError as error:
        raise RuntimeFault(k.messages(context), step=_STEP, errno=error.errno, path=request.lower[0]) from error
    finally:
        os.fchdir(before)
        for fd in (before, context, *opened):
            os.close(fd)
