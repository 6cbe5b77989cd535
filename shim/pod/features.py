"""What a runtime handler can do on this node: one answer for kubelet (Status), for RunPodSandbox and for config.json."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from shim.container.spec.inputs import HandlerFeatures
from shim.errors import WherryError
from shim.pod.binaries import Binary

if TYPE_CHECKING:
    from shim.config import HandlerConfig
    from shim.container.spec.host import HostFacts
    from shim.pod.node import Node

log = structlog.get_logger()

RECURSIVE_READ_ONLY = (5, 12)
"""First kernel with mount_setattr(2)."""
PROBE_SECONDS = 10.0


def features_of(node: Node, name: str) -> HandlerFeatures:
    """Give the features of the handler called `name`."""
    return handler_features(node.config.runtime.handler(name), node.host, node.binaries.get(name))


def handler_features(handler: HandlerConfig | None, host: HostFacts, binary: Binary | None = None) -> HandlerFeatures:
    """Give the features of a handler, `binary` being what its own says; none of one that is not configured (any more).

    User namespaces need both: the binary maps the ids of volumes, and the kernel those of the root's layers, which the monitor
    mounts for it (`look_at_layers`).
    """
    if handler is None:
        return HandlerFeatures()
    said = binary or Binary()
    understands = not handler.path or handler.recursive_read_only_mounts or said.recursive_read_only_mounts
    return HandlerFeatures(
        recursive_read_only_mounts=understands and host.kernel >= RECURSIVE_READ_ONLY,
        user_namespaces=(not handler.path or said.maps_ids) and host.mapped_layers,
    )


async def look_at_layers(node: Node) -> None:
    """Find out by doing it whether user namespaces can be had: kernel, file system and limits of the node all have a say."""
    try:
        await node.jobs.job("layers", {"folder": node.config.root}, timeout=PROBE_SECONDS)
        node.host = replace(node.host, mapped_layers=True)
    except (WherryError, OSError) as error:
        log.warning("pods cannot have user namespaces on this node", error=str(error))
