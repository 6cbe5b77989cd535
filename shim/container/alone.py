"""Whether a container can be made by one fork: the monitor is told, and need not read config.json."""

from __future__ import annotations

import functools

from runtime.apply.cgroup import detect
from runtime.errors import RuntimeFault
from runtime.plan.alone import alone_in
from runtime.plan.cgroup import UNIFIED
from runtime.privilege import Standing, standing


def cgroup_alone(config_json: bytes) -> str:
    """Give the directory the container's v2 cgroup will have, where its document allows it, and "" otherwise."""
    mount = _unified_mount()
    path = alone_in(config_json) if mount else ""
    return mount + path if path else ""


@functools.cache
def _unified_mount() -> str:
    """Give where cgroup v2 is mounted; empty without it, and for a daemon that is not the host's root."""
    if standing("auto") != Standing():
        return ""
    try:
        return next((one.mount.rstrip("/") for one in detect().hierarchies if one.key == UNIFIED), "")
    except (OSError, RuntimeFault):
        return ""
