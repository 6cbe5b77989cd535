"""What a runtime handler can do on this node: one answer for kubelet (Status), for RunPodSandbox and for config.json."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shim.container.spec.inputs import HandlerFeatures

if TYPE_CHECKING:
    from shim.config import HandlerConfig
    from shim.container.spec.host import HostFacts

RECURSIVE_READ_ONLY = (5, 12)
"""First kernel with mount_setattr(2)."""


def handler_features(handler: HandlerConfig | None, host: HostFacts) -> HandlerFeatures:
    """Give the features of a handler; none of one that is not configured (any more).

    User namespaces are none of them: the root filesystem and the volumes of such a pod would have to be mounted id-mapped,
    and a container that cannot read its own files is worse than kubelet's refusal of the pod.
    """
    if handler is None:
        return HandlerFeatures()
    return HandlerFeatures(
        recursive_read_only_mounts=handler.recursive_read_only_mounts and host.kernel >= RECURSIVE_READ_ONLY,
        user_namespaces=False,
    )
