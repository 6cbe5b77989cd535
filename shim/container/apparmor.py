"""The default AppArmor profile is there when a container needs it: loaded at the daemon's start, or again when it is missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from shim.container.spec.inputs import SpecSettings
from shim.container.spec.look import apparmor_profiles
from shim.errors import WherryError

if TYPE_CHECKING:
    from shim.pod.node import Node

log = structlog.get_logger()

SECONDS = 20.0
"""Time of the parser, which compiles the profile."""


async def load_at_start(node: Node) -> None:
    """Load the profile where AppArmor is on; one that is loaded stays as it is, it may be the node's admin's own."""
    if node.host.apparmor and SpecSettings().apparmor_profile not in apparmor_profiles():
        await load_profile(node)


async def load_profile(node: Node) -> str:
    """Load the profile and give "", or what keeps it from being loaded, which `node` remembers and the log is told once."""
    name = SpecSettings().apparmor_profile
    try:
        await node.jobs.job("apparmor", {"name": name}, timeout=SECONDS)
    except (WherryError, OSError) as error:
        if str(error) != node.apparmor_problem:
            log.warning("containers that ask for no AppArmor profile run without one", error=str(error))
        node.apparmor_problem = str(error)
    else:
        log.info("AppArmor profile loaded", profile=name)
        node.apparmor_problem = ""
    return node.apparmor_problem
