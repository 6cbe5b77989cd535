"""What each mount of config.json asks of the kernel (mount(8)'s option words, runtime-spec "Mounts")."""

from __future__ import annotations

import os

from runtime.errors import SpecFault
from runtime.kernel import mount as k
from runtime.plan.idmaps import IdMapPlan, is_id_map_word, plan_id_map
from runtime.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from runtime.spec.model import Mount, Spec

_SET = {
    "ro": (k.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, k.MOUNT_ATTR_RDONLY),
    "nosuid": (k.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, k.MOUNT_ATTR_NOSUID),
    "nodev": (k.MOUNT_ATTR_NODEV, 0),
    "dev": (0, k.MOUNT_ATTR_NODEV),
    "noexec": (k.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, k.MOUNT_ATTR_NOEXEC),
    "nodiratime": (k.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, k.MOUNT_ATTR_NODIRATIME),
    "noatime": (k.MOUNT_ATTR_NOATIME, k.MOUNT_ATTR_ATIME),
    "relatime": (k.MOUNT_ATTR_RELATIME, k.MOUNT_ATTR_ATIME),
    "strictatime": (k.MOUNT_ATTR_STRICTATIME, k.MOUNT_ATTR_ATIME),
    "atime": (k.MOUNT_ATTR_RELATIME, k.MOUNT_ATTR_ATIME),
    "norelatime": (k.MOUNT_ATTR_STRICTATIME, k.MOUNT_ATTR_ATIME),
    "nostrictatime": (k.MOUNT_ATTR_RELATIME, k.MOUNT_ATTR_ATIME),
    "nosymfollow": (k.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, k.MOUNT_ATTR_NOSYMFOLLOW),
}
_PROPAGATION = {
    "private": (k.MS_PRIVATE, False),
    "rprivate": (k.MS_PRIVATE, True),
    "slave": (k.MS_SLAVE, False),
    "rslave": (k.MS_SLAVE, True),
    "shared": (k.MS_SHARED, False),
    "rshared": (k.MS_SHARED, True),
    "unbindable": (k.MS_UNBINDABLE, False),
    "runbindable": (k.MS_UNBINDABLE, True),
}
PROPAGATION_WORDS = tuple(_PROPAGATION)
_SUPERBLOCK = (
    "sync",
    "async",
    "dirsync",
    "lazytime",
    "nolazytime",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
    "silent",
    "loud",
)
_IGNORED = (
    "defaults", "", "auto", "noauto", "user", "nouser", "_netdev", "nofail", "loud", "silent", "noiversion", "iversion",
    "async",
)  # fmt: skip
"""What changes nothing; iversion neither, since file systems that count versions of inodes do so always."""
KERNEL_OPTIONS = (
    *_SET,
    *("r" + word for word in _SET),
    *_PROPAGATION,
    *_SUPERBLOCK,
    "defaults",
    "bind",
    "rbind",
    "remount",
    "tmpcopyup",
    "idmap",
    "ridmap",
    "copy-symlink",
    "src-nofollow",
    "dest-nofollow",
)
"""Every option word that is not handed to the file system; `features` prints them."""

LABEL_OPTION = "context="

PSEUDO = ("proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "ramfs")
"""Types whose superblock is never made read-only: "ro" is a matter of the mount."""


class Change(Record):
    """Attribute bits to set and to clear."""

    set: int = 0
    clear: int = 0

    def empty(self) -> bool:
        """Tell whether nothing changes."""
        return not (self.set or self.clear)


class MountPlan(Record):
    """One mount. `kind` is bind, cgroup, remount or new (a file system of `fstype`); `source` of a bind is absolute.

    `propagation` is an MS_ flag or 0, `data` what the file system itself is told.
    """

    destination: str
    kind: str
    fstype: str = ""
    source: str = ""
    recursive: bool = False
    change: Change = Change()
    deep_change: Change = Change()
    propagation: int = 0
    deep_propagation: bool = False
    data: tuple[str, ...] = ()
    copy_up: bool = False
    follow_source: bool = True
    follow_destination: bool = True
    copy_link: bool = False
    """A source that is a symbolic link is made anew at the destination instead of mounted."""
    id_map: IdMapPlan | None = None
    layers: tuple[str, ...] = ()
    """The directories of an overlay that is only read, topmost first."""
    late_source: bool = False
    """The source lies in the root, among mounts made before this one."""
    label: str = ""
    """SELinux label of a new file system's root, where the system itself takes none."""

    def late_read_only(self) -> bool:
        """Tell whether the mount turns read-only only after the runtime filled it: /dev, and copies of what lay below."""
        writable_until_then = self.copy_up or (self.destination == "/dev" and self.kind != "bind")
        return writable_until_then and bool(self.change.set & k.MOUNT_ATTR_RDONLY)


class _Gather:
    """What the option words of one mount add up to."""

    __slots__ = ("bind", "copy_up", "data", "deep", "deep_propagation", "flags", "propagation", "recursive", "words")

    def __init__(self) -> None:
        self.bind = False
        self.recursive = False
        self.copy_up = False
        self.flags = [0, 0]
        self.deep = [0, 0]
        self.propagation = 0
        self.deep_propagation = False
        self.data: list[str] = []
        self.words: set[str] = set()


def _merge(into: list[int], bits: tuple[int, int]) -> None:
    add, drop = bits
    into[0] = into[0] & ~drop | add
    into[1] = into[1] & ~(add & ~k.MOUNT_ATTR_ATIME) | drop


def _gather(options: tuple[str, ...]) -> _Gather:
    found = _Gather()
    for word in options:
        if word in _SET:
            _merge(found.flags, _SET[word])
        elif word[:1] == "r" and word[1:] in _SET:
            _merge(found.deep, _SET[word[1:]])
        elif word in _PROPAGATION:
            found.propagation, found.deep_propagation = _PROPAGATION[word]
        elif word in ("bind", "rbind"):
            found.bind = True
            found.recursive = found.recursive or word == "rbind"
        elif word == "tmpcopyup":
            found.copy_up = True
        elif word in ("remount", "copy-symlink", "src-nofollow", "dest-nofollow"):
            found.words.add(word)
        elif word not in _IGNORED and not is_id_map_word(word):
            found.data.append(word)
    return found


def plan_mount(mount: Mount, bundle: str, pointer: str) -> MountPlan:
    """Decide one mount; relative sources of binds are relative to the bundle; raise SpecFault."""
    found = _gather(mount.options)
    kind = _kind(mount, found)
    source = mount.source
    if kind == "bind":
        if not source:
            raise SpecFault("a bind mount needs a source", pointer=f"{pointer}/source")
        source = os.path.join(bundle, source)
        unknown = next((word for word in found.data if word not in _SUPERBLOCK), "")
        if unknown:
            text = f'bind mounts cannot have any filesystem-specific options applied: "{unknown}"'
            raise SpecFault(text, pointer=f"{pointer}/options")
    elif kind == "new" and not mount.type:
        raise SpecFault("a mount that is no bind needs a type", pointer=f"{pointer}/type")
    if found.copy_up and mount.type != "tmpfs":
        raise SpecFault("tmpcopyup is for tmpfs only", pointer=f"{pointer}/options")
    if "copy-symlink" in found.words and found.words & {"src-nofollow", "dest-nofollow"}:
        raise SpecFault("copy-symlink cannot stand beside src-nofollow or dest-nofollow", pointer=f"{pointer}/options")
    default_propagation = k.MS_PRIVATE if kind == "bind" else 0
    return MountPlan(
        destination=os.path.normpath("/" + mount.destination.lstrip("/")),
        kind=kind,
        fstype=mount.type,
        source=source,
        recursive=found.recursive,
        change=Change(set=found.flags[0], clear=found.flags[1]),
        deep_change=Change(set=found.deep[0], clear=found.deep[1]),
        propagation=found.propagation or default_propagation,
        deep_propagation=found.deep_propagation or not found.propagation,
        data=_data(kind, mount.type, found),
        layers=_layers(found.data) if kind == "new" and mount.type == "overlay" else (),
        copy_up=found.copy_up,
        follow_source="src-nofollow" not in found.words and "copy-symlink" not in found.words,
        follow_destination="dest-nofollow" not in found.words,
        copy_link="copy-symlink" in found.words,
    )


def _kind(mount: Mount, found: _Gather) -> str:
    if "remount" in found.words:
        return "remount"
    if found.bind or mount.type == "bind":
        found.recursive = found.recursive or ("rbind" in mount.options)
        return "bind"
    return "cgroup" if mount.type in ("cgroup", "cgroup2") else "new"


def _data(kind: str, fstype: str, found: _Gather) -> tuple[str, ...]:
    if kind == "bind":
        return ()
    data = list(found.data)
    if found.flags[0] & k.MOUNT_ATTR_RDONLY and fstype not in PSEUDO:
        data.append("ro")
    return tuple(data)


def _layers(data: Iterable[str]) -> tuple[str, ...]:
    """Give the directories of an overlay that has nothing but them: the creator mounts it, so that ids can be mapped."""
    options = [option for option in data if option != "ro"]
    if len(options) != 1 or not options[0].startswith("lowerdir=/") or "\\" in options[0]:
        return ()
    return tuple(options[0].removeprefix("lowerdir=").split(":"))


def plan_mounts(spec: Spec, bundle: str) -> tuple[MountPlan, ...]:
    """Decide every mount of the document, in its order.

    A destination may be spelled with the root's own path before it, as callers of runc do.
    """
    root = os.path.normpath(os.path.join(bundle, spec.root.path)) if spec.root is not None else "/"
    plans: list[MountPlan] = []
    for at, mount in enumerate(spec.mounts):
        plan = _plan_with_ids(mount, spec, bundle, f"/mounts/{at}")
        destination = below(plan.destination, root) or plan.destination
        inside = below(os.path.normpath(plan.source), root) if plan.kind == "bind" else ""
        late = bool(inside) and any(below(inside, one.destination) or below(one.destination, inside) for one in plans)
        data = (*plan.data, *_label(plan, spec.linux.mount_label))
        root_label = spec.linux.mount_label if plan.kind == "new" and plan.fstype == "mqueue" else ""
        plans.append(replace(plan, destination=destination, late_source=late, data=data, label=root_label))
    for at, one in enumerate(plans):
        _check_over_proc(one, f"/mounts/{at}/destination")
    return tuple(plans)


_OWN_LABELS = ("proc", "sysfs", "mqueue")
"""Types whose files SELinux's policy labels one by one."""


def _label(plan: MountPlan, label: str) -> tuple[str, ...]:
    """Give the option that labels all files of a new file system, unless the mount itself names such a label (mount(8))."""
    if plan.kind != "new" or plan.fstype in _OWN_LABELS:
        return ()
    return () if any(option.startswith(LABEL_OPTION) for option in plan.data) else label_options(label)


def label_options(label: str) -> tuple[str, ...]:
    """Give what tells a file system linux.mountLabel; nothing where there is none."""
    return (f"{LABEL_OPTION}{label}",) if label else ()


def below(path: str, folder: str) -> str:
    """Give `path` as seen from `folder`, which it lies in ("/" for the folder itself); empty when it does not."""
    if folder == "/":
        return ""
    return path[len(folder) :] or "/" if path == folder or path.startswith(folder + "/") else ""


def _plan_with_ids(mount: Mount, spec: Spec, bundle: str, pointer: str) -> MountPlan:
    plan = plan_mount(mount, bundle, pointer)
    id_map = plan_id_map(mount, spec.linux, pointer)
    if id_map is None:
        return plan
    if plan.kind != "bind":
        raise SpecFault("id-mapped mounts are only supported for bind mounts", pointer=pointer)
    return replace(plan, id_map=id_map)


_OVER_PROC = (
    "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
)  # fmt: skip


def _check_over_proc(plan: MountPlan, pointer: str) -> None:
    """Refuse a mount over procfs' files that other parts of the system trust; single files are known to be replaced."""
    if plan.destination == "/" and plan.kind != "remount":
        raise SpecFault("nothing is mounted on the root itself: it would not be seen", pointer=pointer)
    if plan.destination.startswith("/proc/") and plan.kind == "new" and plan.fstype == "proc":
        raise SpecFault("a procfs is mounted at /proc itself", pointer=pointer)
    if plan.destination.startswith("/proc/") and plan.destination[len("/proc/") :] not in _OVER_PROC:
        raise SpecFault(f"{plan.destination} cannot be mounted over: it is inside /proc", pointer=pointer)


_RUNTIME_PROPAGATION = {"": (k.MS_SLAVE, True)}


def root_propagation(word: str) -> tuple[int, bool]:
    """Give linux.rootfsPropagation as an MS_ flag and whether it is recursive; the default is rslave."""
    known = _PROPAGATION.get(word) or _RUNTIME_PROPAGATION.get(word)
    if known is None:
        raise SpecFault(f"unknown propagation {word!r}", pointer="/linux/rootfsPropagation")
    return known
