"""CRI messages of what the stores hold."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from shim.gen.runtime.v1 import api_pb2
from shim.store.containers import State

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message

    from shim.config import HandlerConfig
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
    """Give the verbose information on a pod as JSON, under containerd's keys as far as there is such a thing, then our own.

    There is no process of the sandbox's own: `pid` is one that is in its namespaces, a running container's, or 0.
    """
    members = [one for one in node.containers.of_pod(pod.id) if one.state is State.RUNNING]
    namespaces = [{"type": kind, "path": path} for kind, path in pod.status.namespaces.items() if kind != "shm"]
    return _json(
        {
            "pid": members[0].status.pid if members else 0,
            "processStatus": "running" if pod.ready else "deleted",
            "netNamespaceClosed": bool(pod.meta.netns) and "network" not in pod.status.namespaces,
            "image": "",
            "snapshotKey": "",
            "snapshotter": "",
            "runtimeHandler": pod.meta.handler,
            "runtimeType": _runtime_type(node.config.runtime.handler(pod.meta.handler)),
            "runtimeOptions": None,
            "config": plain(pod.config),
            "runtimeSpec": {"hostname": pod.config.hostname, "linux": {"namespaces": namespaces}},
            "cniResult": json.loads(pod.status.cni_result) if pod.status.cni_result else None,
            "netNamespace": pod.meta.netns,
            "cgroup": pod.meta.cgroup,
            "stateDirectory": node.monitors.directory(pod.id),
        }
    )


def _runtime_type(handler: HandlerConfig | None) -> str:
    return (handler.path if handler is not None else "") or "wherry"


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
        spec.image = image.called(spec.user_specified_image) or spec.image
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
    """Give the verbose information on a container as JSON under containerd's keys, then CRI-O's `privileged` and our own.

    `runtime_spec` is its config.json, decoded.
    """
    return _json(
        {
            "sandboxID": container.pod_id,
            "pid": container.status.pid if container.state in {State.CREATED, State.RUNNING} else 0,
            "removing": container.status.removing,
            "snapshotKey": container.id,
            "snapshotter": "overlayfs",
            "runtimeType": container.meta.handler or "wherry",
            "runtimeOptions": None,
            "config": plain(container.config),
            "runtimeSpec": runtime_spec,
            "privileged": container.config.linux.security_context.privileged,
            "bundle": node.container_dir(container.id),
            "ociRoot": node.oci_root,
        }
    )


def image_info(chain_id: str, config: bytes) -> str:
    """Give the verbose information on an image as JSON under containerd's keys; `config` is its configuration as pulled."""
    return _json({"chainID": chain_id, "imageSpec": json.loads(config)})


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


def plain(message: Message) -> dict[str, Any]:
    """Give a message as JSON values the way Go's encoder writes it, which is what tools expect of `info`.

    Names are the .proto's, what has its default is left out, and numbers stay numbers, those of enumerations too.
    """
    values: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"]
            values[field.name] = {str(key): _plain(inner, value[key]) for key in value}
        elif field.is_repeated:
            values[field.name] = [_plain(field, one) for one in value]
        else:
            values[field.name] = _plain(field, value)
    return values


def _plain(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return plain(value)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
