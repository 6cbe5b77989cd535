"""Make device nodes and links of a container's /dev."""

from __future__ import annotations

import os
import stat

from runtime.apply.faults import Step
from runtime.errors import RuntimeFault
from runtime.kernel import mount as k

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.apply.mounts import Mounter
    from runtime.apply.paths import RootPaths
    from runtime.plan.devices import DevicePlan, NodePlan


_KCORE = "/proc/kcore"


def clone_nodes(plan: DevicePlan) -> dict[str, int]:
    """Clone the host's nodes, for a user namespace, where mknod(2) is refused: path -> detached mount."""
    clones = {}
    for node in plan.nodes:
        with Step(f"bind the host's {node.path}", node.path):
            clones[node.path] = k.open_tree(node.path)
    return clones


def make_devices(mounter: Mounter, plan: DevicePlan, clones: dict[str, int]) -> None:
    """Make every node (or bind its clone) and every link; what exists already as planned is kept."""
    paths = mounter.paths
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
