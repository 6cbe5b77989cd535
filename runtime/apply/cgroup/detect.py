"""Look at how this host mounts cgroups."""

from __future__ import annotations

from runtime.apply.cgroup.files import read
from runtime.plan.cgroup import UNIFIED, Layout, parse_layout
from runtime.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.plan.cgroup import Hierarchy


def detect() -> Layout:
    """Give the hierarchies mounted in this mount namespace that this process can be found in."""
    layout = parse_layout(read("/proc/self", "mountinfo"), read("/proc/self", "cgroup"), "")
    return Layout(hierarchies=tuple(_with_controllers(hierarchy) for hierarchy in layout.hierarchies))


def _with_controllers(hierarchy: Hierarchy) -> Hierarchy:
    if hierarchy.key != UNIFIED:
        return hierarchy
    try:
        controllers = tuple(read(hierarchy.mount, "cgroup.controllers").split())
    except OSError:
        controllers = ()
    return replace(hierarchy, controllers=controllers)
