"""The overlay of a container whose runtime is another binary: such a runtime expects a mounted rootfs in the bundle.

Runs in a short-lived child. The built-in runtime mounts it itself, inside the container's mount namespace.
"""

from __future__ import annotations

import errno
import os

from runtime import jsonlite
from runtime.kernel.mount import mount, umount2
from shim.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shim.monitor.protocol import ContainerCreate, RootfsMount

_PAGE = 4096
_MNT_DETACH = 2
_MS_RDONLY = 1


def mount_rootfs(request: ContainerCreate) -> dict[str, Any]:
    """Mount request.rootfs at the bundle's rootfs; raise OSError, InvalidArgument."""
    assert request.rootfs is not None
    name, label = _root_and_label(request.bundle)
    target = os.path.join(request.bundle, name)
    os.makedirs(target, mode=0o755, exist_ok=True)
    options = _options(request.rootfs, (f'context="{label}"',) if label else ())
    mount("overlay", target, "overlay", 0 if request.rootfs.upper else _MS_RDONLY, options)
    return {}


def unmount_rootfs(bundle: str) -> dict[str, Any]:
    """Undo mount_rootfs; nothing mounted is no error."""
    try:
        umount2(os.path.join(bundle, _root_and_label(bundle)[0]), _MNT_DETACH)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    return {}


def _root_and_label(bundle: str) -> tuple[str, str]:
    """Give root.path and linux.mountLabel; the overlay is all that such a runtime does not label itself."""
    try:
        with open(os.path.join(bundle, "config.json"), "rb") as file:
            spec = jsonlite.loads(file.read())
        return str(spec["root"]["path"]), str(spec.get("linux", {}).get("mountLabel", ""))
    except (OSError, ValueError, KeyError, TypeError):
        return "rootfs", ""


def _options(rootfs: RootfsMount, label: tuple[str, ...]) -> str:
    """Give the mount data; many layers are named relative to their common directory, because the data must fit one page."""
    lower = rootfs.lower
    for path in (*lower, rootfs.upper, rootfs.work):
        if any(character in path for character in ":,\\"):
            raise InvalidArgument(f"layer path {path} contains a character that overlay options cannot carry")
    if sum(map(len, lower)) + len(lower) > _PAGE // 2 and len(lower) > 1:
        common = os.path.commonpath(lower)
        os.chdir(common)
        lower = tuple(os.path.relpath(path, common) for path in lower)
    parts = ["lowerdir=" + ":".join(lower)]
    if rootfs.upper:
        parts += [f"upperdir={rootfs.upper}", f"workdir={rootfs.work}"]
    data = ",".join([*parts, *rootfs.options, *label])
    if len(data) >= _PAGE:
        raise InvalidArgument(f"the rootfs has {len(lower)} layers, too many for the options of one mount")
    return data
