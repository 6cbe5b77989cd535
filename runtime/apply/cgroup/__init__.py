"""Make, join, limit, freeze, kill and remove a container's cgroup, whatever mix of v1 and v2 the host mounts."""

from __future__ import annotations

from runtime.apply.cgroup.detect import detect
from runtime.apply.cgroup.group import Cgroup, for_container, from_paths, from_state

__all__ = ["Cgroup", "detect", "for_container", "from_paths", "from_state"]
