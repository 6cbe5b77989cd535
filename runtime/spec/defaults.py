"""The config.json that `spec` writes: a shell with few rights, for a root or a rootless user."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI_VERSION = "1.3.0"
"""The newest runtime-spec whose Linux parts this runtime knows."""


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    mount: dict[str, Any] = {"destination": destination, "type": kind, "source": source}
    if options:
        mount["options"] = list(options)
    return mount


def _process() -> dict[str, Any]:
    capabilities = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
    return {
        "terminal": True,
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        "cwd": "/",
        "capabilities": {kind: list(capabilities) for kind in ("bounding", "effective", "permitted")},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    }


def _mounts(*, rootless: bool) -> list[dict[str, Any]]:
    quiet = ("nosuid", "noexec", "nodev")
    terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if rootless:
        system = _mount("/sys", "none", "/sys", "rbind", *quiet, "ro")
    else:
        terminals.append("gid=5")
        system = _mount("/sys", "sysfs", "sysfs", *quiet, "ro")
    return [
        _mount("/proc", "proc", "proc"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", *terminals),
        _mount("/dev/shm", "tmpfs", "shm", *quiet, "mode=1777", "size=65536k"),  # noqa: S108 - the container's own
        _mount("/dev/mqueue", "mqueue", "mqueue", *quiet),
        system,
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", *quiet, "relatime", "ro"),
    ]


def default_spec(*, rootless: bool = False, user: tuple[int, int] = (0, 0), cgroup_namespace: bool = False) -> dict[str, Any]:
    """Give the document as plain JSON values; `user` (uid and gid) is what a rootless one maps to root."""
    namespaces = ["pid", "network", "ipc", "uts", "mount"]
    linux: dict[str, Any]
    if rootless:
        namespaces.remove("network")
        namespaces.append("user")
        maps = [[{"containerID": 0, "hostID": host, "size": 1}] for host in user]
        linux = {"uidMappings": maps[0], "gidMappings": maps[1]}
    else:
        linux = {"resources": {"devices": [{"allow": False, "access": "rwm"}]}}
    if cgroup_namespace:
        namespaces.append("cgroup")
    linux["namespaces"] = [{"type": kind} for kind in namespaces]
    linux["maskedPaths"] = [
        "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
        "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
    ]  # fmt: skip
    linux["readonlyPaths"] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    return {
        "ociVersion": OCI_VERSION,
        "process": _process(),
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "wherry",
        "mounts": _mounts(rootless=rootless),
        "linux": linux,
    }
