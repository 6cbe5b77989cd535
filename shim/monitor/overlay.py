"""The overlay of a container whose runtime is another binary: such a runtime expects a mounted rootfs in the bundle.

Runs in a short-lived child. The built-in runtime mounts it itself, inside the container's mount namespace.
"""

from __future__ import annotations

import errno
import os

from runtime import jsonlite
from runtime.kernel.mount import mount, move_mount, umount2
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
    name, label, namespace = _root_of(request.bundle)
    target = os.path.join(request.bundle, name)
    os.makedirs(target, mode=0o755, exist_ok=True)
    if namespace:
        _mount_mapped(request.rootfs, target, label, namespace)
        return {}
    options = _options(request.rootfs, (f'context="{label}"',) if label else ())
    mount("overlay", target, "overlay", 0 if request.rootfs.upper else _MS_RDONLY, options)
    return {}


def unmount_rootfs(bundle: str) -> dict[str, Any]:
    """Undo mount_rootfs; nothing mounted is no error."""
    try:
        umount2(os.path.join(bundle, _root_of(bundle)[0]), _MNT_DETACH)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    return {}


def _root_of(bundle: str) -> tuple[str, str, str]:
    """Give root.path, linux.mountLabel and the path of the user namespace; the overlay is all that nobody else sees to."""
    try:
        with open(os.path.join(bundle, "config.json"), "rb") as file:
            spec = jsonlite.loads(file.read())
        linux = spec.get("linux", {})
        users = [str(one.get("path", "")) for one in linux.get("namespaces", ()) if one["type"] == "user"]
        return str(spec["root"]["path"]), str(linux.get("mountLabel", "")), "".join(users)
    except (OSError, ValueError, KeyError, TypeError):
        return "rootfs", "", ""


def _mount_mapped(rootfs: RootfsMount, target: str, label: str, namespace: str) -> None:
    """Mount it as the user namespace at the path `namespace` has the ids, which the runtime cannot do to what it is given."""
    from runtime.apply.idmap import IdMaps  # noqa: PLC0415 - such pods are few, and this is a child
    from runtime.apply.mounts import mount_overlay  # noqa: PLC0415 - as above
    from runtime.plan.mounts import label_options  # noqa: PLC0415 - as above
    from runtime.plan.namespaces import NamespacePlan  # noqa: PLC0415 - as above
    from runtime.request import RootfsMount as Overlay  # noqa: PLC0415 - as above

    options = (*rootfs.options, *label_options(label))
    overlay = Overlay(lower=tuple(rootfs.lower), upper=rootfs.upper or None, work=rootfs.work or None, options=options)
    users = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    place = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = mount_overlay(overlay, IdMaps(NamespacePlan(), users))
        move_mount(fd, place, path=target)
        os.close(fd)
    finally:
        os.close(place)
        os.close(users)


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
