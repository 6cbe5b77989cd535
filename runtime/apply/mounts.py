"""Make mounts: detached first, with all their attributes, and attached to a descriptor last."""

from __future__ import annotations

import errno
import os
import stat

from runtime.apply.faults import Step
from runtime.apply.paths import RootPaths
from runtime.errors import RuntimeFault
from runtime.kernel import mount as k
from runtime.kernel.path import PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.apply.idmap import IdMaps
    from runtime.plan.mounts import MountPlan
    from runtime.request import RootfsMount

_ATTRIBUTES_AT_MOUNT = ~(k.MOUNT_ATTR_IDMAP)


def clone_bind(plan: MountPlan) -> int:
    """Clone the source of a bind mount and give the detached mount, its attributes set.

    The creator does this, as root and before any namespace is entered: the source is looked up as the caller meant it even
    when the container's root could not reach it.
    """
    with Step(f"bind {plan.source} for {plan.destination}", plan.source):
        fd = k.open_tree(plan.source, recursive=plan.recursive, follow=plan.follow_source)
        change_attributes(fd, plan)
    return fd


def change_attributes(fd: int, plan: MountPlan) -> None:
    """Give a detached or attached mount the attributes and the propagation of its plan."""
    if not plan.deep_change.empty():
        k.mount_setattr(fd, k.Attributes(plan.deep_change.set, plan.deep_change.clear), recursive=True, path=plan.destination)
    if not plan.change.empty():
        k.mount_setattr(fd, k.Attributes(plan.change.set, plan.change.clear), path=plan.destination)
    if plan.propagation:
        spread = k.Attributes(propagation=plan.propagation)
        k.mount_setattr(fd, spread, recursive=plan.deep_propagation, path=plan.destination)


def new_filesystem(fstype: str, source: str, data: tuple[str, ...], attributes: int = 0) -> int:
    """Make a file system of `fstype` and give a detached mount; an error carries what the kernel says about the options."""
    context = k.fsopen(fstype)
    try:
        if source:
            k.fsconfig_string(context, "source", source)
        set_options(context, data)
        return k.fsmount(context, attributes)
    except OSError as error:
        said = k.messages(context)
        if said:
            raise RuntimeFault(said, step=f"mount a {fstype}", errno=error.errno) from error
        raise
    finally:
        os.close(context)


def set_options(context: int, options: tuple[str, ...]) -> None:
    """Give a file system's context its options, "key" or "key=value"; of a label only SELinux knows, and says nothing."""
    for option in options:
        key, equals, value = option.partition("=")
        if equals:
            try:
                k.fsconfig_string(context, key, value)
            except OSError as error:
                if key != "context":
                    raise
                raise RuntimeFault(f"SELinux label {value} is refused", step="label a mount", errno=error.errno) from error
        else:
            k.fsconfig_flag(context, key)


def mount_overlay(request: RootfsMount, id_maps: IdMaps | None = None) -> int:
    """Give the detached overlay of a container's layers; `lowerdir+` (Linux 6.5) takes any number of them.

    With `id_maps`, of a container with a user namespace, the layers are shown as the container's ids have them.
    """
    if id_maps is not None:
        from runtime.apply.idoverlay import mount_mapped_overlay

        return mount_mapped_overlay(request, id_maps)
    with Step("mount the root overlay"):
        context = k.fsopen("overlay")
        lower = request.lower
        if len(lower) == 1 and not request.upper:
            lower = (lower[0], _empty_layer())  # overlayfs wants two layers when there is no upper one
        try:
            k.fsconfig_string(context, "source", "overlay")
            for folder in lower:
                k.fsconfig_string(context, "lowerdir+", folder)
            if request.upper and request.work:
                k.fsconfig_string(context, "upperdir", request.upper)
                k.fsconfig_string(context, "workdir", request.work)
            set_options(context, request.options)
            return make_overlay(context, request)
        except OSError as error:
            said = k.messages(context)
            if error.errno == errno.EINVAL and not said:
                return _as_before(request)
            raise RuntimeFault(said, step="mount the root overlay", errno=error.errno, path=request.lower[0]) from error
        finally:
            os.close(context)


def _as_before(request: RootfsMount) -> int:
    """Give the overlay where nothing unmounted can be a layer (before Linux 6.15), or layers are told in one word (6.5)."""
    if len(request.lower) == 1 and not request.upper:
        from runtime.apply.coveredlayers import mount_covered_overlay

        return mount_covered_overlay(request)
    from runtime.apply.oldoverlay import mount_old_overlay

    return mount_old_overlay(request)


def make_overlay(context: int, request: RootfsMount) -> int:
    """Give the detached mount of a configured overlay; raise OSError, RuntimeFault.

    overlayfs falls back to a read-only mount when it cannot write to the work directory: a downgrade nobody has asked for.
    """
    if not request.upper:
        return k.fsmount(context, k.MOUNT_ATTR_RDONLY)
    fd = k.fsmount(context)
    if not os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        return fd
    os.close(fd)
    space = os.statvfs(request.upper)
    number = errno.EROFS if space.f_flag & os.ST_RDONLY else errno.ENOSPC
    raise RuntimeFault(
        f"the upper directory cannot be written to: {os.strerror(number).lower()}",
        step="mount the root overlay",
        errno=number,
        path=request.upper,
    )


def _empty_layer() -> str:
    return f"/proc/self/fd/{k.fsmount(k.fsopen('tmpfs'))}"


_KERNEL_TYPES = ("proc", "sysfs")


def _refuse_kind(error: OSError, target: int, destination: str, *, is_directory: bool) -> None:
    """Say it where a directory was to cover a file or a file a directory: the kernel's word is "invalid argument"."""
    covers_directory = stat.S_ISDIR(os.fstat(target).st_mode)
    if covers_directory != is_directory:
        number = errno.EISDIR if covers_directory else errno.ENOTDIR
        message = "a file cannot be mounted on a directory" if covers_directory else "a directory cannot be mounted on a file"
        raise RuntimeFault(message, step=f"mount on {destination}", errno=number) from error


def _identity(fd: int) -> tuple[int, int]:
    """Give what tells a file from all others, and close it."""
    found = os.fstat(fd)
    os.close(fd)
    return found.st_dev, found.st_ino


class Mounter:
    """Attach mounts below one root; `sources` are the detached binds the creator cloned, by the index of their plan."""

    __slots__ = ("_proc", "clone_late", "paths", "sources")

    def __init__(self, paths: RootPaths, sources: dict[int, int], clone_late: Callable[[int, MountPlan], int]) -> None:
        self.paths = paths
        self.sources = sources
        self.clone_late = clone_late
        self._proc: tuple[int, int] | None = None

    def attach(self, fd: int, destination: str, *, is_directory: bool, plain: bool = False, follow: bool = True) -> None:
        """Attach a detached mount and close its descriptor; without `follow`, on the destination though it be a link."""
        target = self.paths.target(destination, is_directory=is_directory, plain=plain, follow=follow)
        try:
            self._refuse_proc(target, destination, fd)
            k.move_mount(fd, target, path=destination)
        except OSError as error:
            _refuse_kind(error, target, destination, is_directory=is_directory)
            raise
        finally:
            os.close(target)
            os.close(fd)

    def _refuse_proc(self, target: int, destination: str, fd: int) -> None:
        """Refuse what is no procfs on /proc, and what links lead into it: the files there are trusted (CVE-2019-19921)."""
        if destination == "/proc" or self._is_place_of_proc(target):
            if fstatfs_type(fd) != PROC_SUPER_MAGIC:
                detail = '"/proc" cannot be mounted because it is not of type proc'  # runc's words
                raise RuntimeFault(detail, step="attach a mount", path=destination)
            return
        if destination.startswith("/proc/") or fstatfs_type(target) != PROC_SUPER_MAGIC:
            return
        try:
            proc = self.paths.open("/proc")
        except OSError:
            return
        own = os.fstat(proc).st_dev == os.fstat(target).st_dev
        os.close(proc)
        if own:
            raise RuntimeFault("it cannot be mounted over: it is inside /proc", step="attach a mount", path=destination)

    def _is_place_of_proc(self, target: int) -> bool:
        """Tell whether `target` is the image's /proc, whatever link led to it."""
        if self._proc is None:
            try:
                self._proc = _identity(self.paths.open("/proc"))
            except OSError:
                return False  # there is none yet
        found = os.fstat(target)
        return (found.st_dev, found.st_ino) == self._proc

    def perform(self, index: int, plan: MountPlan) -> None:
        """Do one plan, whatever its kind but cgroup; raise RuntimeFault."""
        with Step(f"mount {plan.fstype or plan.kind} on {plan.destination}", plan.destination):
            if plan.kind == "bind":
                self._bind(index, plan)
            elif plan.kind == "remount":
                self._remount(plan)
            else:
                self._new(plan, self.sources.pop(index, None))

    def _bind(self, index: int, plan: MountPlan) -> None:
        fd = self.sources.pop(index) if index in self.sources else self.clone_late(index, plan)
        mode = os.fstat(fd).st_mode
        if plan.copy_link and stat.S_ISLNK(mode):
            self._copy_link(fd, plan.destination)
        else:
            self.attach(fd, plan.destination, is_directory=stat.S_ISDIR(mode), follow=plan.follow_destination)

    def _copy_link(self, fd: int, destination: str) -> None:
        """Make the symbolic link anew that `fd` is, and close that; what is there already has to be the same."""
        leads_to = os.readlink("", dir_fd=fd)
        os.close(fd)
        parent, name = self.paths.parent(destination)
        try:
            os.symlink(leads_to, name, dir_fd=parent)
        except FileExistsError:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISLNK(found.st_mode) or os.readlink(name, dir_fd=parent) != leads_to:
                raise RuntimeFault("something else is there", step="copy a symbolic link", path=destination) from None
        finally:
            os.close(parent)

    def _remount(self, plan: MountPlan) -> None:
        target = self.paths.open(plan.destination)
        try:
            change_attributes(target, plan)
        finally:
            os.close(target)

    def _new(self, plan: MountPlan, made: int | None) -> None:
        attributes = plan.change.set & _ATTRIBUTES_AT_MOUNT
        if plan.late_read_only():
            attributes &= ~k.MOUNT_ATTR_RDONLY
        fd = new_filesystem(plan.fstype, plan.source, self._data(plan), attributes) if made is None else made
        if plan.copy_up:
            from runtime.apply.copyup import copy_up

            copy_up(self.paths, plan.destination, fd)
            if plan.late_read_only():
                k.mount_setattr(fd, k.Attributes(k.MOUNT_ATTR_RDONLY))
        if plan.propagation:
            k.mount_setattr(fd, k.Attributes(propagation=plan.propagation), recursive=plan.deep_propagation)
        if plan.label:
            from runtime.apply.labels import label_root

            label_root(fd, plan.label)
        try:
            self.attach(fd, plan.destination, is_directory=True, plain=plan.fstype in _KERNEL_TYPES)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR) or plan.fstype not in _KERNEL_TYPES:
                raise
            where = f"{plan.fstype} on {plan.destination}"
            raise RuntimeFault("it must be mounted on ordinary directory", step=f"mount {where}", errno=error.errno) from error

    def _data(self, plan: MountPlan) -> tuple[str, ...]:
        """Give the options of a file system; a tmpfs without a mode takes that of the directory it covers, as with runc."""
        if plan.fstype != "tmpfs" or any(option.startswith("mode=") for option in plan.data):
            return plan.data
        try:
            fd = self.paths.open(plan.destination)
        except OSError:
            return plan.data
        try:
            return (*plan.data, f"mode={stat.S_IMODE(os.fstat(fd).st_mode):o}")
        finally:
            os.close(fd)


def hide(covers: Covers, masked: tuple[str, ...], null_fd: int, label: tuple[str, ...] = ()) -> None:
    """Cover each path that exists: a directory with one empty read-only tmpfs, anything else with the host's /dev/null.

    `label` are options of the tmpfs.

    `null_fd` was opened by the creator and is known to be the null device, so nothing in the root can stand in for it.
    """
    folder_cover = -1
    for path in masked:
        with Step(f"mask {path}", path):
            target = covers.open(path)
            if target is None:
                continue
            try:
                if not stat.S_ISDIR(os.fstat(target).st_mode):
                    cover = k.open_tree("", dir_fd=null_fd)
                elif folder_cover < 0:
                    cover = new_filesystem("tmpfs", "tmpfs", ("size=0k", "nr_inodes=2", *label), k.MOUNT_ATTR_RDONLY)
                else:
                    cover = k.open_tree("", dir_fd=folder_cover)
                k.move_mount(cover, target, path=path)
                if folder_cover < 0 and stat.S_ISDIR(os.fstat(target).st_mode):
                    folder_cover = cover  # attached by now: only then every kernel lets it be cloned
                else:
                    os.close(cover)
            finally:
                os.close(target)
    if folder_cover >= 0:
        os.close(folder_cover)


def make_read_only(covers: Covers, read_only: tuple[str, ...]) -> None:
    """Bind each path that exists on itself, read-only."""
    for path in read_only:
        with Step(f"make {path} read-only", path):
            target = covers.open(path)
            if target is None:
                continue
            try:
                copy = k.open_tree("", dir_fd=target, recursive=True)
                k.mount_setattr(copy, k.Attributes(k.MOUNT_ATTR_RDONLY))
                k.move_mount(copy, target, path=path)
                os.close(copy)
            finally:
                os.close(target)


_KERNEL_FOLDERS = {"proc": PROC_SUPER_MAGIC, "sys": SYSFS_MAGIC}


class Covers:
    """Opens what is to be covered: below /proc and /sys the kernel's own files, whatever is exchanged for what meanwhile.

    Each of the two is opened once, known by its kind, and only looked into by that descriptor, so that no cover comes to lie on
    something that only looks like it. `mounted` names those the document mounts: to find something else there is a fault.
    """

    __slots__ = ("_paths", "_tops", "mounted")

    def __init__(self, paths: RootPaths, mounted: frozenset[str]) -> None:
        self._paths = paths
        self._tops: dict[str, int] = {}
        self.mounted = mounted

    def close(self) -> None:
        """Close what was opened on the way."""
        for fd in self._tops.values():
            os.close(fd)
        self._tops.clear()

    def open(self, path: str) -> int | None:
        """Open a path that is to be covered, or give None where there is none; raise RuntimeFault, OSError."""
        _, folder, rest = (*path.split("/", 2), "", "")[:3]
        try:
            if folder in _KERNEL_FOLDERS and path.startswith("/") and rest:
                return self._below(folder, rest, path)
            return self._paths.open(path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _below(self, folder: str, rest: str, path: str) -> int:
        is_proc = folder == "proc"
        top = self._tops.get(folder)
        if top is None:
            top = self._tops[folder] = self._paths.open(f"/{folder}", plain=is_proc)
        if fstatfs_type(top) == _KERNEL_FOLDERS[folder]:
            return RootPaths(top).open(rest, plain=is_proc)
        if f"/{folder}" not in self.mounted:
            fd = self._paths.open(path, plain=is_proc)
            if not is_proc:
                return fd
            os.close(fd)
        raise RuntimeFault(f"this is not the kernel's {folder}fs", step=f"cover {path}", path=path)
