"""CRI messages of what the stores hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict

from shim.gen.runtime.v1 import api_pb2
from shim.store.containers import State

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from shim.image.record import ImageRecord
    from shim.pod.node import Node
    from shim.store.containers import Container
    from shim.store.pods import Pod

CONTAINER_STATES = {
    State.CREATING: api_pb2.CONTAINER_UNKNOWN,
    State.CREATED: api_pb2.CONTAINER_CREATED,
    State.RUNNING: api_pb2.CONTAINER_RUNNING,
    State.EXITED: api_pb2.CONTAINER_EXITED,
    State.UNKNOWN: api_pb2.CONTAINER_UNKNOWN,
}


def pod_state(pod: Pod) -> api_pb2.PodSandboxState:
    """Give the state kubelet knows."""
    return api_pb2.SANDBOX_READY if pod.ready else api_pb2.SANDBOX_NOTREADY


def pod_item(pod: Pod) -> api_pb2.PodSandbox:
    """Give a pod as ListPodSandbox shows it."""
    return api_pb2.PodSandbox(
        id=pod.id,
        metadata=pod.config.metadata,
        state=pod_state(pod),
        created_at=pod.meta.created_at,
        labels=pod.config.labels,
        annotations=pod.config.annotations,
        runtime_handler=pod.meta.handler,
    )


def pod_status(pod: Pod) -> api_pb2.PodSandboxStatus:
    """Give a pod as PodSandboxStatus shows it."""
    network = api_pb2.PodSandboxNetworkStatus()
    if pod.status.ips and pod.ready:
        network.ip = pod.status.ips[0]
        network.additional_ips.extend(api_pb2.PodIP(ip=ip) for ip in pod.status.ips[1:])
    modes = pod.config.linux.security_context.namespace_options
    return api_pb2.PodSandboxStatus(
        id=pod.id,
        metadata=pod.config.metadata,
        state=pod_state(pod),
        created_at=pod.meta.created_at,
        network=network,
        linux=api_pb2.LinuxPodSandboxStatus(namespaces=api_pb2.Namespace(options=modes)),
        labels=pod.config.labels,
        annotations=pod.config.annotations,
        runtime_handler=pod.meta.handler,
    )


def pod_info(node: Node, pod: Pod) -> str:
    """Give the verbose information on a pod as JSON."""
    return _json(
        {
            "handler": pod.meta.handler,
            "netNamespace": pod.meta.netns,
            "namespaces": pod.status.namespaces,
            "cgroup": pod.meta.cgroup,
            "stateDirectory": node.monitors.directory(pod.id),
            "cniResult": json.loads(pod.status.cni_result) if pod.status.cni_result else None,
            "config": to_dict(pod.config),
        }
    )


def container_item(container: Container) -> api_pb2.Container:
    """Give a container as ListContainers shows it."""
    return api_pb2.Container(
        id=container.id,
        pod_sandbox_id=container.pod_id,
        metadata=container.config.metadata,
        image=container.config.image,
        image_ref=container.meta.image_id,
        image_id=container.meta.image_id,
        state=CONTAINER_STATES[container.state],
        created_at=container.status.created_at,
        labels=container.config.labels,
        annotations=container.config.annotations,
    )


def container_status(container: Container, image: ImageRecord | None) -> api_pb2.ContainerStatus:
    """Give a container as ContainerStatus shows it; `image` is its image as far as it is still there."""
    status = container.status
    spec = api_pb2.ImageSpec()
    spec.CopyFrom(container.config.image)
    reference = container.meta.image_id
    if image is not None:
        names = image.repo_tags or image.repo_digests
        spec.image = names[0] if names else spec.image
        reference = image.repo_digests[0] if image.repo_digests else reference
    return api_pb2.ContainerStatus(
        id=container.id,
        metadata=container.config.metadata,
        state=CONTAINER_STATES[container.state],
        created_at=status.created_at,
        started_at=status.started_at,
        finished_at=status.finished_at,
        exit_code=status.exit_code,
        image=spec,
        image_ref=reference,
        image_id=container.meta.image_id,
        reason=status.reason,
        message=status.message,
        labels=container.config.labels,
        annotations=container.config.annotations,
        mounts=container.config.mounts,
        log_path=container.meta.log_path,
        resources=api_pb2.ContainerResources(linux=container.resources),
        user=api_pb2.ContainerUser(
            linux=api_pb2.LinuxContainerUser(uid=status.uid, gid=status.gid, supplemental_groups=status.groups)
        ),
        stop_signal=_cri_signal(container.meta.stop_signal),
    )


def _cri_signal(number: int) -> api_pb2.Signal:
    return api_pb2.Signal.Value(signal_name(number))  # type: ignore[return-value]  # the stub says int


def signal_name(number: int) -> str:
    """Give the CRI's name of a Linux signal; those that have two names by the better known one."""
    import signal  # noqa: PLC0415 - only here

    if number in {signal.SIGRTMIN, signal.SIGRTMAX}:
        return f"SIGNAL_{signal.Signals(number).name}"
    if signal.SIGRTMIN < number < signal.SIGRTMAX:
        up = number - signal.SIGRTMIN
        return f"SIGNAL_SIGRTMINPLUS{up}" if up <= 15 else f"SIGNAL_SIGRTMAXMINUS{signal.SIGRTMAX - number}"
    return f"SIGNAL_{signal.Signals(number).name}"


def container_info(node: Node, container: Container, runtime_spec: Any) -> str:
    """Give the verbose information on a container as JSON; `runtime_spec` is its config.json, decoded."""
    return _json(
        {
            "sandboxID": container.pod_id,
            "pid": container.status.pid if container.state is State.RUNNING else 0,
            "removing": container.status.removing,
            "handler": container.meta.handler or "wherry",
            "bundle": node.container_dir(container.id),
            "ociRoot": node.oci_root,
            "config": to_dict(container.config),
            "runtimeSpec": runtime_spec,
        }
    )


def image_item(image: ImageRecord) -> api_pb2.Image:
    """Give an image as ListImages and ImageStatus show it."""
    message = api_pb2.Image(
        id=image.id,
        repo_tags=image.repo_tags,
        repo_digests=image.repo_digests,
        size=image.size,
        pinned=image.pinned,
        spec=api_pb2.ImageSpec(image=image.id),
    )
    user = image.config.user.partition(":")[0]
    if user.isdigit():
        message.uid.value = int(user)
    elif user:
        message.username = user
    else:
        message.uid.value = 0
    return message


def to_dict(message: Message) -> dict[str, Any]:
    """Give a message as JSON values with the field names of the .proto."""
    return MessageToDict(message, preserving_proto_field_name=True)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
