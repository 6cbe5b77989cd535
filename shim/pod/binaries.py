"""What the binaries of other runtime handlers say they can do: `features` of the OCI runtime specification, read in a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from shim.errors import WherryError

if TYPE_CHECKING:
    from shim.pod.node import Node

log = structlog.get_logger()

SECONDS = 15.0
"""Time of a job: more than a binary has to answer, so that the job itself ends one that hangs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """The part of a features document that counts here (runtime-spec features.md)."""

    recursive_read_only_mounts: bool = False
    maps_ids: bool = False
    """It knows user namespaces and id-mapped mounts: volumes show their own ids in a pod with a user namespace."""


async def ask_binaries(node: Node) -> None:
    """Ask every handler's binary once; one that cannot answer (crun before 1.9) has no features, and that is logged."""
    for name, handler in node.config.runtime.handlers.items():
        if not handler.path:
            continue
        try:
            found = await node.jobs.job("features", {"command": [handler.path, *handler.options]}, timeout=SECONDS)
            node.binaries[name] = Binary(recursive_read_only_mounts="rro" in found["mount_options"], maps_ids=found["maps_ids"])
        except (WherryError, OSError) as error:
            log.warning("runtime handler's binary does not tell its features", handler=name, error=str(error))
