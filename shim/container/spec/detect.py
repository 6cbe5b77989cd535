"""Look at the node once: the effect behind HostFacts."""

from __future__ import annotations

import os
import platform
import re

from shim.container.spec.capabilities import KNOWN
from shim.container.spec.host import CgroupLayout, HostFacts

SYS_RESOURCE = "CAP_SYS_RESOURCE"
SHARED_OPTIONS = frozenset(("nsdelegate", "memory_recursiveprot"))


def detect_host(*, root: str = "/") -> HostFacts:
    """Read /proc and /sys below `root` (tests give a tree of their own); what cannot be read counts as absent."""
    node = _Node(root)
    status = node.fields("proc/self/status")
    layout = _cgroup_layout(node)
    bounding = _capabilities(status.get("CapBnd", "0"))
    release = node.text("proc/sys/kernel/osrelease") or platform.release()
    return HostFacts(
        capabilities=bounding,
        machine=platform.machine(),
        kernel=_kernel(release),
        hostname=node.text("proc/sys/kernel/hostname").strip() or platform.node() or "localhost",
        cgroup_layout=layout,
        cgroup_options=_cgroup_options(node, layout),
        swap_controller=_swap_controller(node, layout),
        hugetlb_controller=_hugetlb_controller(node, layout),
        seccomp="Seccomp" in status and node.exists("proc/sys/kernel/seccomp/actions_avail"),
        apparmor=node.text("sys/module/apparmor/parameters/enabled").startswith("Y"),
        selinux=node.exists("sys/fs/selinux/enforce"),
        selinux_mls=node.text("sys/fs/selinux/mls").strip() != "0",
        oom_score_adj_floor=_oom_floor(node, status),
    )


class _Node:
    """The files of a node below one root."""

    def __init__(self, root: str) -> None:
        self._root = root

    def path(self, name: str) -> str:
        return os.path.join(self._root, name)

    def exists(self, name: str) -> bool:
        return os.path.exists(self.path(name))

    def text(self, name: str) -> str:
        try:
            with open(self.path(name), encoding="utf-8", errors="surrogateescape") as file:
                return file.read(1 << 20)
        except OSError:
            return ""

    def fields(self, name: str) -> dict[str, str]:
        pairs = (line.partition(":") for line in self.text(name).splitlines())
        return {key: value.strip() for key, _, value in pairs}


def _capabilities(mask: str) -> tuple[str, ...]:
    """Name the bits of a /proc/PID/status mask (capabilities(7)); bits this program has no name for are left out."""
    bits = int(mask, 16)
    return tuple(name for bit, name in enumerate(KNOWN) if bits >> bit & 1)


def _kernel(release: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _cgroup_layout(node: _Node) -> CgroupLayout:
    """Tell by files: only the root of a v2 hierarchy has cgroup.controllers."""
    if node.exists("sys/fs/cgroup/cgroup.controllers"):
        return CgroupLayout.V2
    if node.exists("sys/fs/cgroup/unified/cgroup.controllers"):
        return CgroupLayout.HYBRID
    return CgroupLayout.V1


def _cgroup_options(node: _Node, layout: CgroupLayout) -> tuple[str, ...]:
    """Give the super-block options of the v2 mount that a second mount of it would otherwise clear (cgroups(7))."""
    if layout is not CgroupLayout.V2:
        return ()
    for line in node.text("proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        if before.split(" ")[4:5] == ["/sys/fs/cgroup"] and after.startswith("cgroup2 "):
            options = after.split(" ")[-1].split(",")
            return tuple(option for option in options if option in SHARED_OPTIONS)
    return ()


def _own_cgroup(node: _Node) -> str:
    for line in node.text("proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            return line[3:].strip("/")
    return ""


def _swap_controller(node: _Node, layout: CgroupLayout) -> bool:
    """Tell whether swap can be limited; the root of a v2 hierarchy never shows it, the daemon's own group does."""
    if layout is not CgroupLayout.V2:
        return node.exists("sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
    return node.exists(os.path.join("sys/fs/cgroup", _own_cgroup(node), "memory.swap.max"))


def _hugetlb_controller(node: _Node, layout: CgroupLayout) -> bool:
    """Tell whether huge pages can be limited, on a hybrid node by either hierarchy.

    The directory alone may be what a failed mount left behind.
    """
    if node.exists("sys/fs/cgroup/hugetlb/cgroup.procs"):
        return True
    folder = {CgroupLayout.V2: "", CgroupLayout.HYBRID: "unified/"}.get(layout)
    return folder is not None and "hugetlb" in node.text(f"sys/fs/cgroup/{folder}cgroup.controllers").split()


def _oom_floor(node: _Node, status: dict[str, str]) -> int:
    """Give the lowest value the daemon may write: anything with CAP_SYS_RESOURCE, else not below its own (proc(5))."""
    if SYS_RESOURCE in _capabilities(status.get("CapEff", "0")):
        return -1000
    text = node.text("proc/self/oom_score_adj").strip()
    return int(text) if text else 0
