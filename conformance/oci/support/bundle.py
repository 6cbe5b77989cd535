"""The bundle each judgement begins with: a root of one static busybox, and a plain document."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_WORDS = (
    "sh ash awk cat chmod chown chrt cp cut date dd df echo env false find getopt grep head hostname id ifconfig ionice ip "
    "kill ln ls mkdir mkfifo mknod mount mv nc nproc od printf ps pwd readlink rm rmdir sed seq setsid sleep sort stat stty "
    "sync sysctl tail taskset test timeout touch tr true tty umount uname unshare uptime wc xargs"
)
APPLETS = tuple(_WORDS.split())
FOLDERS = ("bin", "proc", "sys", "dev", "etc", "tmp", "root", "mnt", "run")
CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
NAMESPACES = ("pid", "network", "ipc", "uts", "mount")
DEV_OPTIONS = ("nosuid", "strictatime", "mode=755", "size=65536k")


def make_rootfs(root: Path, busybox: Path) -> None:
    """Make a root around a busybox that is hard-linked where possible: it costs no copy, and belongs to one test alone."""
    for name in FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    os.chmod(root / "tmp", 0o1777)
    try:
        os.link(busybox, root / "bin/busybox")
    except OSError:
        shutil.copy2(busybox, root / "bin/busybox")
    for name in APPLETS:
        os.symlink("busybox", root / "bin" / name)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nsailor:x:1000:1000:sailor:/home/sailor:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nsailor:x:1000:\n")


def default_mounts() -> list[dict[str, Any]]:
    """Give the file systems every Linux program expects."""
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": list(DEV_OPTIONS)},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    ]


def default_config(cgroups_path: str) -> dict[str, Any]:
    """Give a document that every runtime of specification 1.0 on can run."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "hostname": "judge",
        "mounts": default_mounts(),
        "linux": {"namespaces": [{"type": kind} for kind in NAMESPACES], "cgroupsPath": cgroups_path},
    }
