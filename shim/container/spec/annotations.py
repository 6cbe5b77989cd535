"""Annotations of the spec: what tools on the node read to tell whose container it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shim.container.spec.paths import container_log_path

if TYPE_CHECKING:
    from shim.container.spec.inputs import SpecInputs

CRI = "io.kubernetes.cri."
WHERRY = "io.wherry."


def spec_annotations(inputs: SpecInputs) -> dict[str, str]:
    """Give containerd's keys, which exporters and debuggers know, and Wherry's.

    Of the pod's and the container's only those are passed on that the handler's configuration names: OCI runtimes take
    orders from some (CVE-2024-3154 set systemd properties that way).
    """
    metadata = inputs.pod.metadata
    values = {
        f"{CRI}container-type": "container",
        f"{CRI}container-name": inputs.config.metadata.name,
        f"{CRI}image-name": inputs.config.image.user_specified_image or inputs.image_name,
        f"{CRI}sandbox-id": inputs.pod_id,
        f"{CRI}sandbox-name": metadata.name,
        f"{CRI}sandbox-namespace": metadata.namespace,
        f"{CRI}sandbox-uid": metadata.uid,
        f"{WHERRY}container-attempt": str(inputs.config.metadata.attempt),
    }
    log_path = container_log_path(inputs.config, inputs.pod)
    if log_path:
        values[f"{WHERRY}log-path"] = log_path
    return {**inputs.annotations, **values}
