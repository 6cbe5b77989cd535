"""Make device nodes and links of a container's /dev."""

from __future__ import annotations

import errno
import os
import stat

from runtime.apply.faults import Step
from runtime.apply.mounts import new_filesystem
from runtime.errors import RuntimeFault
from runtime.kernel import mount as k
from runtime.plan.devices import DEFAULT_DEVICES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.apply.mounts import Mounter
    from runtime.apply.paths import RootPaths
    from runtime.plan.devices import DevicePlan, NodePlan
    from runtime.spec.model import IdMapping, Linux


_KCORE = "/proc/kcore"


_DEFAULT_PATHS = frozenset(device.path for device in DEFAULT_DEVICES)


def clone_nodes(plan: DevicePlan, linux: Linux) -> dict[str, int]:
    """Give nodes for a user namespace, where mknod(2) is refused: path -> detached mount.

    Those every container has are the host's. What linux.devices lists may lie elsewhere on the host, or belong to another, so
    it is made here, as long as the caller may; otherwise the host's must be the same device.
    """
    clones = {}
    for node in plan.nodes:
        with Step(f"bind the host's {node.path}", node.path):
            fd = -1 if node.path in _DEFAULT_PATHS else _made_node(node, linux)
            clones[node.path] = fd = fd if fd >= 0 else _host_node(node)
            k.mount_setattr(fd, k.Attributes(k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NOEXEC))
    return clones


def _host_node(node: NodePlan) -> int:
    fd = k.open_tree(node.path)
    found = os.fstat(fd)
    if stat.S_IFMT(found.st_mode) != stat.S_IFMT(node.mode) or found.st_rdev != node.device:
        os.close(fd)
        raise RuntimeFault("it is another device", step=f"bind the host's {node.path}", path=node.path)
    return fd


def _made_node(node: NodePlan, linux: Linux) -> int:
    """Make a node on a file system of its own and give its mount; -1 where the caller may not, or the kernel does not."""
    folder = new_filesystem("tmpfs", "tmpfs", ("mode=700",))
    try:
        os.mknod("node", node.mode, node.device, dir_fd=folder)
        owner, group = _on_host(node.uid, linux.uid_mappings), _on_host(node.gid, linux.gid_mappings)
        os.chown("node", owner, group, dir_fd=folder)
        os.chmod("node", stat.S_IMODE(node.mode), dir_fd=folder)
        return k.open_tree("node", dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL):
            raise
        return -1
    finally:
        os.close(folder)


def _on_host(number: int, mappings: tuple[IdMapping, ...]) -> int:
    for mapping in mappings:
        if mapping.container_id <= number < mapping.container_id + mapping.size:
            return mapping.host_id + number - mapping.container_id
    return number


def make_devices(mounter: Mounter, plan: DevicePlan, clones: dict[str, int]) -> None:
    """Make every node (or bind its clone) and every link; what exists already as planned is kept."""
    paths = mounter.paths
    _require_plain(paths, "/dev")
    previous = os.umask(0)
    try:
        for node in plan.nodes:
            with Step(f"make the device {node.path}", node.path):
                if node.path in clones:
                    mounter.attach(clones.pop(node.path), node.path, is_directory=False)
                else:
                    _make_node(paths, node)
        for path, target in plan.links:
            if target == _KCORE and not os.path.exists(_KCORE):
                continue  # a kernel may come without it
            with Step(f"make the link {path}", path):
                _make_link(paths, path, target)
    finally:
        os.umask(previous)


def _require_plain(paths: RootPaths, folder: str) -> None:
    """Refuse a /dev that leads elsewhere: what is made in it would replace files of that place."""
    try:
        fd = paths.open(folder, follow=False)
    except FileNotFoundError:
        return
    linked = stat.S_ISLNK(os.fstat(fd).st_mode)
    os.close(fd)
    if linked:
        raise RuntimeFault("it is a symbolic link: it must be an ordinary directory", step="make devices", path=folder)


def _make_node(paths: RootPaths, node: NodePlan) -> None:
    parent, name = paths.parent(node.path)
    try:
        try:
            os.mknod(name, node.mode, node.device, dir_fd=parent)
        except FileExistsError:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_IFMT(found.st_mode) != stat.S_IFMT(node.mode) or found.st_rdev != node.device:
                raise RuntimeFault("something else is there", step="make a device", path=node.path) from None
        if node.uid or node.gid:
            os.chown(name, node.uid, node.gid, dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(parent)


def _make_link(paths: RootPaths, path: str, target: str) -> None:
    parent, name = paths.parent(path)
    try:
        os.symlink(target, name, dir_fd=parent)
    except FileExistsError:
        if name != "ptmx":
            return
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISLNK(found.st_mode):  # a ptmx node of the host's devpts would give ptys of the host
            os.unlink(name, dir_fd=parent)
            os.symlink(target, name, dir_fd=parent)
    finally:
        os.close(parent)
