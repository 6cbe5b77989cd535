"""Look at the host paths that a container names: plain values in, plain values out, so that it can be done anywhere.

On a node where only local file systems are mounted it is done in a thread. Where a path may lie on a file server, which may
be dead, it is done in a spawner job: a thread that hangs in the kernel cannot be got rid of, a process can be killed. This
module is imported by the spawner and knows nothing of CRI's messages; `sources` is between the two.

`look` takes {"mounts": [path…], "propagation": bool, "devices": [path…], "node_devices": bool, "seccomp": path or ""}.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import re
import stat
from typing import TYPE_CHECKING, Any

from runtime.kernel.path import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from shim.container.spec.mountinfo import propagation_of
from shim.container.spec.regular import read_regular
from shim.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOUNTINFO = "/proc/self/mountinfo"
APPARMOR_PROFILES = "/sys/kernel/security/apparmor/profiles"
SECCOMP_LIMIT = 1 << 20
"""Bytes of a Localhost seccomp profile."""
SKIPPED = frozenset(("pts", "shm", "fd", "mqueue", "console", ".lxc", ".lxd-mounts", ".udev"))  # /dev of the node's own
MOST_DEVICES = 4096

_LOCAL_DISKS = (
    "ext2|ext3|ext4|xfs|btrfs|zfs|f2fs|bcachefs|vfat|exfat|ntfs3|iso9660|squashfs|erofs|overlay|tmpfs|ramfs|hugetlbfs|rootfs"
)
_KERNEL = "proc|sysfs|devtmpfs|devpts|mqueue|cgroup|cgroup2|cpuset|nsfs|bpf|debugfs|tracefs|securityfs|configfs|pstore|efivarfs"
_MORE = "selinuxfs|fusectl|rpc_pipefs|nfsd|binfmt_misc|resctrl"
LOCAL = re.compile(f"(?:{_LOCAL_DISKS}|{_KERNEL}|{_MORE})")
"""Types of file systems that no other machine and no other process has to answer for."""
_TYPE = re.compile(r" - (\S+) ")

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

Found = dict[str, Any]
Json = dict[str, Any]


def run(params: Json, fds: list[int], report: Callable[[Json], None]) -> Json:
    """Do what params["action"] says, "look" or "make"; the entry point of the "hostpaths" job."""
    del fds, report
    if params["action"] == "make":
        return make(params["directories"], params.get("log"))
    return look(params)


def may_hang() -> bool:
    """Say whether a file system is mounted on this node that may stop answering; never hangs itself (proc(5), mountinfo)."""
    return not all(LOCAL.fullmatch(kind) for kind in set(_TYPE.findall(_mountinfo())))


def make(directories: list[str], log: tuple[str, str] | None = None) -> Json:
    """Create directories (0755) with their parents; raise FailedPrecondition naming the one that cannot be.

    `log` is a pod's log directory and the folders of a log in it, which are reached through no symbolic link.
    """
    for directory in directories:
        try:
            os.makedirs(directory, 0o755, exist_ok=True)
        except OSError as error:
            raise FailedPrecondition(f"directory {directory} on the host cannot be created: {error.strerror}") from error
    if log is not None:
        make([log[0]])
        _make_below(*log)
    return {}


def _make_below(directory: str, folders: str) -> None:
    above = os.open(directory, _FOLDER)
    try:
        for name in filter(None, folders.split("/")):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=above)
            inner = openat2(above, name, _FOLDER, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
            os.close(above)
            above = inner
    except OSError as error:
        why = "a symbolic link is in its place; remove it" if error.errno == errno.ELOOP else error.strerror
        raise FailedPrecondition(f"log directory {directory}/{folders} on the host cannot be created: {why}") from error
    finally:
        os.close(above)


def look(wanted: Json) -> Found:
    """Resolve the paths; creates nothing. Raises InvalidArgument and FailedPrecondition naming the field."""
    table = _mountinfo() if wanted["propagation"] else ""
    missing: list[str] = []
    mounts = [_mount(path, index, table, missing) for index, path in enumerate(wanted["mounts"])]
    profile = _seccomp_profile(wanted["seccomp"]) if wanted["seccomp"] else None
    return {
        "mounts": mounts,
        "devices": [_devices(path, index) for index, path in enumerate(wanted["devices"])],
        "host_devices": list(_scan("/dev", "/dev")) if wanted["node_devices"] else [],
        "seccomp": None if profile is None else base64.b64encode(profile).decode(),
        "apparmor": apparmor_profiles(),
        "missing": missing,
    }


def _mountinfo() -> str:
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _mount(path: str, index: int, table: str, missing: list[str]) -> Json:
    """Resolve one mount's host path; what does not exist is to become a directory, as kubelet's hostPath "" expects."""
    resolved = os.path.realpath(path)
    is_dir = True
    try:
        is_dir = stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        if os.path.islink(path):
            raise FailedPrecondition(f"mounts[{index}].host_path {path!r} is a symbolic link to nothing") from None
        missing.append(resolved)
    except OSError as error:
        raise FailedPrecondition(f"mounts[{index}].host_path {path!r} cannot be looked at: {error.strerror}") from error
    point, kind = propagation_of(table, resolved) if table else ("/", "private")
    return {"path": resolved, "is_dir": is_dir, "propagation": str(kind), "mountpoint": point}


def _devices(path: str, index: int) -> list[Json]:
    resolved = os.path.realpath(path)
    try:
        status = os.lstat(resolved)
    except OSError as error:
        raise InvalidArgument(f"devices[{index}].host_path {path!r}: {error.strerror}") from error
    nodes = list(_scan(resolved, "")) if stat.S_ISDIR(status.st_mode) else _node("", status)
    if not nodes:
        raise InvalidArgument(f"devices[{index}].host_path {path!r} is not a device and holds none")
    return nodes


def _scan(directory: str, name: str) -> Iterator[Json]:
    """Give the devices below `directory`, their paths starting with `name`; links and the node's own mounts are passed over."""
    count = 0
    pending = [(directory, name)]
    while pending:
        path, prefix = pending.pop()
        for entry in _entries(path):
            label = f"{prefix}/{entry.name}" if prefix else entry.name
            if entry.is_dir(follow_symlinks=False):
                pending.append((entry.path, label))
                continue
            for node in _entry_node(entry, label):
                count += 1
                if count > MOST_DEVICES:
                    raise InvalidArgument(f"{directory!r} holds more than {MOST_DEVICES} devices")
                yield node


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted((entry for entry in entries if entry.name not in SKIPPED), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []  # gone between the listing and now
    except OSError as error:
        raise FailedPrecondition(f"devices of {path!r} cannot be listed: {error.strerror}") from error


def _entry_node(entry: os.DirEntry[str], label: str) -> list[Json]:
    try:
        return _node(label, entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return []


def _node(label: str, status: os.stat_result) -> list[Json]:
    """Give the node, or nothing for what is no device: fifos and sockets in /dev are not."""
    if stat.S_ISCHR(status.st_mode):
        kind = "c"
    elif stat.S_ISBLK(status.st_mode):
        kind = "b"
    else:
        return []
    return [
        {
            "path": label,
            "kind": kind,
            "major": os.major(status.st_rdev),
            "minor": os.minor(status.st_rdev),
            "mode": stat.S_IMODE(status.st_mode),
            "uid": status.st_uid,
            "gid": status.st_gid,
        }
    ]


def _seccomp_profile(path: str) -> bytes:
    """Read the Localhost profile: a regular file, bounded."""
    field = f"linux.security_context.seccomp.localhost_ref {path!r}"
    try:
        data = read_regular(path, SECCOMP_LIMIT, follow=True)
    except OSError as error:
        raise InvalidArgument(f"{field} cannot be opened: {error.strerror}") from error
    if data is None:
        raise InvalidArgument(f"{field} is not a regular file")
    return data


def apparmor_profiles() -> list[str]:
    """Read the names of loaded profiles, lines like "name (enforce)"; none where AppArmor is off."""
    try:
        with open(APPARMOR_PROFILES, encoding="utf-8", errors="surrogateescape") as file:
            return [line.rpartition(" (")[0] for line in file]
    except OSError:
        return []
