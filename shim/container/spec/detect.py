"""Look at the node once: the effect behind HostFacts."""

from __future__ import annotations

from shim.container.spec.host import HostFacts


def detect_host(*, root: str = "/") -> HostFacts:
    """Read /proc and /sys below `root` (tests give a tree of their own); what cannot be read counts as absent."""
    raise NotImplementedError
