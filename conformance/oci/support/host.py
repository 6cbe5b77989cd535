"""What this machine can do: a judgement that needs more is skipped, and the skip says what is missing."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import pytest

CAPABILITIES = {"CAP_SYS_RESOURCE": 24, "CAP_SYS_ADMIN": 21, "CAP_SYS_NICE": 23, "CAP_NET_ADMIN": 12}
CGROUPS = "/sys/fs/cgroup"


def need(present: object, what: str) -> None:
    """Skip the running test when the host lacks something."""
    if not present:
        pytest.skip(f"host: {what}")


def read(path: str) -> str:
    """Give a file's text without its last newline, or nothing when there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").rstrip("\n")
    except OSError:
        return ""


@cache
def kernel() -> tuple[int, int]:
    """Give the version of the running kernel."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    assert found is not None
    return int(found[1]), int(found[2])


def has_capability(name: str) -> bool:
    """Tell whether root here has a capability."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", read("/proc/self/status"), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> CAPABILITIES[name] & 1)


def has_namespace(kind: str) -> bool:
    """Tell whether the kernel has a kind of namespace; the word is that of /proc/self/ns."""
    return os.path.exists(f"/proc/self/ns/{kind}")


def need_user_namespaces() -> None:
    """Skip where root may not make user namespaces."""
    need(has_namespace("user"), "the kernel has no user namespaces (CONFIG_USER_NS)")
    need(read("/proc/sys/user/max_user_namespaces") != "0", "user.max_user_namespaces is 0")


def has_apparmor() -> bool:
    """Tell whether AppArmor confines processes here."""
    return read("/sys/module/apparmor/parameters/enabled") == "Y"


def has_selinux() -> bool:
    """Tell whether SELinux labels processes here."""
    return os.path.exists("/sys/fs/selinux/enforce")


def has_resctrl() -> bool:
    """Tell whether Intel RDT's file system is mounted."""
    return os.path.exists("/sys/fs/resctrl/schemata")


def has_numa() -> bool:
    """Tell whether the kernel knows memory policies."""
    return os.path.exists("/proc/self/numa_maps")


@cache
def has_swap_accounting() -> bool:
    """Tell whether the memory controller counts swap."""
    return v2() or os.path.exists(f"{CGROUPS}/memory/memory.memsw.limit_in_bytes")


@cache
def cgroup_mounts() -> dict[str, str]:
    """Give the mount point of each v1 controller, and of the v2 hierarchy under the empty name."""
    found: dict[str, str] = {}
    for line in read("/proc/self/mountinfo").splitlines():
        fields = line.split(" ")
        kind, options = fields[fields.index("-") + 1], fields[-1].split(",")
        if kind == "cgroup2":
            found.setdefault("", fields[4])
        elif kind == "cgroup":
            for option in options:
                found.setdefault(option.removeprefix("name="), fields[4])
    return found


def v2() -> bool:
    """Tell whether cgroup v2 is the one hierarchy (not v1, and not the hybrid of both)."""
    return cgroup_mounts().get("") == CGROUPS


def controllers() -> set[str]:
    """Give the resource controllers a container can have, under their v1 names (blkio stands for io)."""
    if v2():
        words = set(read(f"{CGROUPS}/cgroup.controllers").split())
        return {"blkio" if word == "io" else word for word in words} | {"devices", "freezer"}
    known = ("cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "rdma", "devices", "freezer", "net_cls", "net_prio")
    return {name for name in known if name in cgroup_mounts()}


def need_controller(name: str) -> None:
    """Skip where a controller is off."""
    need(name in controllers(), f"no {name} cgroup controller")


def block_device() -> int:
    """Give the number of a disk; skip where there is none."""
    for name in sorted(os.listdir("/sys/block")):
        numbers = read(f"/sys/block/{name}/dev")
        if numbers:
            major, minor = numbers.split(":")
            return os.makedev(int(major), int(minor))
    pytest.skip("host: no block device")
