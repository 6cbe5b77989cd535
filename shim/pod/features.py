"""What a runtime handler can do on this node: one answer for kubelet (Status), for RunPodSandbox and for config.json."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shim.container.spec.inputs import HandlerFeatures

if TYPE_CHECKING:
    from shim.config import HandlerConfig
    from shim.container.spec.host import HostFacts

RECURSIVE_READ_ONLY = (5, 12)
"""First kernel with mount_setattr(2)."""
USER_NAMESPACES = (6, 15)
"""First kernel whose overlayfs takes detached id-mapped layers: the root of a container with a user namespace."""


def handler_features(handler: HandlerConfig | None, host: HostFacts) -> HandlerFeatures:
    """Give the features of a handler; none of one that is not configured (any more).

    Another runtime's binary finds its root mounted by the monitor, whose ids are the host's: a container with a user
    namespace could not write to its own files, so that only our own runtime serves such pods.
    """
    if handler is None:
        return HandlerFeatures()
    return HandlerFeatures(
        recursive_read_only_mounts=handler.recursive_read_only_mounts and host.kernel >= RECURSIVE_READ_ONLY,
        user_namespaces=not handler.path and host.kernel >= USER_NAMESPACES,
    )
