"""The container's root file system, from the first mount to pivot_root(2)."""

from __future__ import annotations

import os
import stat

from runtime.apply.faults import Step
from runtime.apply.mounts import Covers, Mounter, clone_bind, hide, make_read_only
from runtime.apply.paths import RootPaths
from runtime.errors import RuntimeFault
from runtime.kernel import mount as k
from runtime.launch import protocol
from runtime.plan.mounts import label_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.launch.inherited import Inherited
    from runtime.plan.launch import LaunchPlan
    from runtime.plan.mounts import MountPlan

_O_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_NULL_DEVICE = os.makedev(1, 3)


def attach_root(inherited: Inherited) -> RootPaths:
    """Cut this mount namespace off from the host's and attach the root, which the creator made, at its place."""
    plan = inherited.plan
    if plan.namespaces.has("mount"):
        _cut_off(plan)
    with Step("attach the root file system", plan.rootfs):
        place = os.open(plan.rootfs, _O_DIRECTORY)
        k.move_mount(inherited.root_mount, place, path=plan.rootfs)
        os.close(place)
        os.close(inherited.root_mount)
        inherited.root_mount = -1
        return RootPaths(os.open(plan.rootfs, _O_DIRECTORY))


def _cut_off(plan: LaunchPlan) -> None:
    with Step("set the propagation of /", "/"):
        host_root = os.open("/", _O_DIRECTORY)
        propagation = k.MS_PRIVATE if plan.propagation[0] == k.MS_PRIVATE else k.MS_SLAVE
        k.mount_setattr(host_root, k.Attributes(propagation=propagation), recursive=True)
        os.close(host_root)


def open_null() -> int:
    """Open the host's /dev/null and make sure that it is the null device."""
    with Step("open /dev/null", "/dev/null"):
        fd = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        status = os.fstat(fd)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _NULL_DEVICE:
            raise RuntimeFault("this is not the null device", step="open /dev/null", path="/dev/null")
    return fd


def fill_root(inherited: Inherited, paths: RootPaths) -> None:
    """Do every mount in the document's order, then the devices."""
    plan = inherited.plan
    mounter = Mounter(paths, inherited.sources, lambda index, one: _late_source(inherited, index, one))
    for index, one in enumerate(plan.mounts):
        if one.kind == "cgroup":
            from runtime.apply.cgroupmount import mount_cgroup

            mount_cgroup(mounter, one, inherited.cgroup.shown(), has_namespace=plan.namespaces.has("cgroup"))
        else:
            mounter.perform(index, one)
    if plan.devices.nodes:
        from runtime.apply.devices import make_devices

        make_devices(mounter, plan.devices, inherited.node_clones)


def _late_source(inherited: Inherited, index: int, one: MountPlan) -> int:
    """Give the clone of a source among the mounts just made.

    The creator makes it where init may not: to map its ids, or when init is no longer the host's root; a user's may do no more.
    """
    if inherited.standing.user or (one.id_map is None and not inherited.plan.namespaces.in_user_namespace()):
        return clone_bind(one)
    inherited.link.send(protocol.SOURCE, str(index).encode())
    return inherited.link.receive_fd(protocol.CLONED)


def make_working_directory(plan: LaunchPlan, paths: RootPaths) -> None:
    """Make the process's cwd where it is missing, as runc does."""
    cwd = plan.process.source.cwd
    if cwd == "/":
        return
    with Step(f"make the working directory {cwd}", cwd):
        os.close(paths.directory(cwd))


def protect_root(plan: LaunchPlan, paths: RootPaths, null_fd: int) -> None:
    """Make read-only and cover what the document names."""
    for one in plan.mounts:
        if one.late_read_only() and not one.copy_up:
            with Step(f"make {one.destination} read-only", one.destination):
                fd = paths.open(one.destination)
                k.mount_setattr(fd, k.Attributes(k.MOUNT_ATTR_RDONLY))
                os.close(fd)
    covers = Covers(paths, frozenset(one.destination for one in plan.mounts if one.fstype in ("proc", "sysfs")))
    make_read_only(covers, tuple(dict.fromkeys(plan.spec.linux.readonly_paths)))
    label = label_options(plan.spec.linux.mount_label)
    hide(covers, tuple(dict.fromkeys(plan.spec.linux.masked_paths)), null_fd, label)
    covers.close()
    if plan.spec.root is not None and plan.spec.root.readonly:
        with Step("make the root file system read-only", plan.rootfs):
            k.mount_setattr(paths.root_fd, k.Attributes(k.MOUNT_ATTR_RDONLY))


def enter_root(plan: LaunchPlan, paths: RootPaths) -> None:
    """Make the root this mount namespace's only one, and let go of the host's."""
    os.fchdir(paths.root_fd)
    if not plan.namespaces.has("mount"):
        with Step("enter the root file system", plan.rootfs):
            os.chroot(".")
    elif plan.request.no_pivot:
        _move_root(plan)
    else:
        _pivot_root(plan)
    os.chdir("/")
    os.close(paths.root_fd)
    if plan.finished_propagation is not None:
        with Step("set the propagation of the root", "/"):
            root = os.open("/", _O_DIRECTORY)
            kind, deep = plan.finished_propagation
            k.mount_setattr(root, k.Attributes(propagation=kind), recursive=deep)
            os.close(root)


def _pivot_root(plan: LaunchPlan) -> None:
    with Step("pivot into the root file system", plan.rootfs):
        host_root = os.open("/", _O_DIRECTORY)
        k.pivot_root(".", ".")  # both names are one directory: the old root lies on top of the new one afterwards
        os.fchdir(host_root)
        k.mount_setattr(host_root, k.Attributes(propagation=k.MS_SLAVE), recursive=True)  # the host must not see what follows
        k.umount2(".", k.MNT_DETACH)
        os.close(host_root)


def _move_root(plan: LaunchPlan) -> None:
    """Put the root on top of the host's, which stays below: without the host's procfs and sysfs.

    As long as one that is wholly visible is left anywhere in a mount namespace, a user namespace inside may mount another,
    with nothing masked.
    """
    with Step("move the root file system to /", plan.rootfs):
        for path in _kernel_mounts(plan.rootfs):
            try:
                k.umount2(path, k.MNT_DETACH)
            except OSError:  # locked (mount_namespaces(7)): then it is covered
                k.mount("tmpfs", path, "tmpfs", k.MS_RDONLY)
        k.mount(".", "/", "", k.MS_MOVE)
        os.chroot(".")


def _kernel_mounts(rootfs: str) -> list[str]:
    """Give where procfs and sysfs are mounted outside the root, the topmost first."""
    found = []
    fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            path = before.split(" ")[4].replace("\\040", " ")
            if after.split(" ")[0] in ("proc", "sysfs") and not f"{path}/".startswith(f"{rootfs}/"):
                found.append(path)
    return found[::-1]
