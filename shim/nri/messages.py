"""Pods and containers as plugins are told of them. Pure: from rows and config.json to messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shim.container.spec.annotations import CRI
from shim.gen.nri.v1alpha1 import api_pb2 as nri
from shim.gen.runtime.v1 import api_pb2 as cri
from shim.nri.resources import from_cri, from_oci, put
from shim.store.containers import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.image.record import ImageRecord
    from shim.store.containers import Container
    from shim.store.pods import Pod

Json = dict[str, Any]

STATES = {
    State.CREATING: nri.CONTAINER_UNKNOWN,
    State.CREATED: nri.CONTAINER_CREATED,
    State.RUNNING: nri.CONTAINER_RUNNING,
    State.EXITED: nri.CONTAINER_STOPPED,
    State.UNKNOWN: nri.CONTAINER_UNKNOWN,
}
HOOKS = {
    "prestart": "prestart",
    "create_runtime": "createRuntime",
    "create_container": "createContainer",
    "start_container": "startContainer",
    "poststart": "poststart",
    "poststop": "poststop",
}
"""Kinds of hooks, and the runtime-spec's names of them."""
PROFILES = {
    cri.SecurityProfile.RuntimeDefault: nri.SecurityProfile.RUNTIME_DEFAULT,
    cri.SecurityProfile.Unconfined: nri.SecurityProfile.UNCONFINED,
    cri.SecurityProfile.Localhost: nri.SecurityProfile.LOCALHOST,
}


def pod_message(pod: Pod) -> nri.PodSandbox:
    """Give a pod. Without a pause process its pid is 0; its namespaces are the paths of their pins."""
    config, metadata = pod.config, pod.config.metadata
    linux = nri.LinuxPodSandbox(cgroup_parent=config.linux.cgroup_parent, cgroups_path=pod.meta.cgroup)
    if config.linux.HasField("overhead"):
        linux.pod_overhead.CopyFrom(from_cri(config.linux.overhead))
    if config.linux.HasField("resources"):
        linux.pod_resources.CopyFrom(from_cri(config.linux.resources))
    for kind, path in sorted(pod.status.namespaces.items()):
        if kind != "shm":
            linux.namespaces.add(type=kind, path=path)
    return nri.PodSandbox(
        id=pod.id,
        name=metadata.name,
        uid=metadata.uid,
        namespace=metadata.namespace,
        labels=config.labels,
        annotations={**_sandbox_annotations(pod), **config.annotations},
        runtime_handler=pod.meta.handler,
        linux=linux,
        ips=pod.status.ips,
    )


def _sandbox_annotations(pod: Pod) -> dict[str, str]:
    """Give containerd's own, from which plugins for it know whose pod it is."""
    metadata = pod.config.metadata
    return {
        f"{CRI}container-type": "sandbox",
        f"{CRI}sandbox-id": pod.id,
        f"{CRI}sandbox-name": metadata.name,
        f"{CRI}sandbox-namespace": metadata.namespace,
        f"{CRI}sandbox-uid": metadata.uid,
        f"{CRI}sandbox-log-directory": pod.config.log_directory,
    }


def container_message(container: Container, spec: Json, image: ImageRecord | None) -> nri.Container:
    """Give a container as its config.json (`spec`) has it, with the adjustments made so far."""
    process, status = spec.get("process", {}), container.status
    user = process.get("user", {})
    message = nri.Container(
        id=container.id,
        pod_sandbox_id=container.pod_id,
        name=container.config.metadata.name,
        state=STATES[container.state],
        labels=container.config.labels,
        annotations={**spec.get("annotations", {}), **container.config.annotations},
        args=process.get("args", []),
        env=[_text(one) for one in process.get("env", [])],
        mounts=[_mount(one) for one in spec.get("mounts", [])],
        pid=0 if status.finished_at else status.pid,  # the number may be another process's by now
        created_at=status.created_at,
        started_at=status.started_at,
        finished_at=status.finished_at,
        exit_code=status.exit_code,
        status_reason=status.reason,
        status_message=status.message,
        CDI_devices=[nri.CDIDevice(name=device.name) for device in container.config.CDI_devices],
        user=nri.User(uid=user.get("uid", 0), gid=user.get("gid", 0), additional_gids=user.get("additionalGids", [])),
        image=_image(container, image),
        linux=_linux(container, spec),
    )
    for limit in process.get("rlimits", []):
        message.rlimits.add(type=limit["type"], hard=limit["hard"], soft=limit["soft"])
    for name, word in HOOKS.items():
        getattr(message.hooks, name).extend(_hook(hook) for hook in spec.get("hooks", {}).get(word, []))
    return message


def _text(value: str) -> str:
    """Make text of a variable: bytes that are not UTF-8 stand as lone surrogates in a config.json, which no plugin can read."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _image(container: Container, image: ImageRecord | None) -> nri.Image:
    digest = image.repo_digests[0].rpartition("@")[2] if image is not None and image.repo_digests else ""
    asked = container.config.image
    return nri.Image(name=asked.user_specified_image or asked.image, digest=digest, config_digest=container.meta.image_id)


def _mount(mount: Mapping[str, Any]) -> nri.Mount:
    return nri.Mount(
        destination=mount["destination"],
        type=mount.get("type", ""),
        source=mount.get("source", ""),
        options=mount.get("options", []),
    )


def _hook(hook: Mapping[str, Any]) -> nri.Hook:
    message = nri.Hook(path=hook["path"], args=hook.get("args", []), env=hook.get("env", []))
    if "timeout" in hook:
        put(message.timeout, hook["timeout"])
    return message


def _linux(container: Container, spec: Json) -> nri.LinuxContainer:
    linux, process = spec.get("linux", {}), spec.get("process", {})
    message = nri.LinuxContainer(
        namespaces=[nri.LinuxNamespace(type=one["type"], path=one.get("path", "")) for one in linux.get("namespaces", [])],
        devices=[_device(one) for one in linux.get("devices", [])],
        resources=from_oci(linux.get("resources", {})),
        cgroups_path=linux.get("cgroupsPath", ""),
        sysctl=linux.get("sysctl", {}),
    )
    if "oomScoreAdj" in process:
        put(message.oom_score_adj, process["oomScoreAdj"])
    if "ioPriority" in process:
        asked = process["ioPriority"]
        message.io_priority.CopyFrom(nri.LinuxIOPriority(io_class=asked["class"], priority=asked.get("priority", 0)))
    if "scheduler" in process:
        message.scheduler.CopyFrom(nri.LinuxScheduler(**process["scheduler"]))
    if "intelRdt" in linux:
        message.rdt.CopyFrom(_rdt(linux["intelRdt"]))
    security = container.config.linux.security_context
    if security.HasField("seccomp"):
        message.seccomp_profile.profile_type = PROFILES[security.seccomp.profile_type]
        message.seccomp_profile.localhost_ref = security.seccomp.localhost_ref
        message.seccomp_profile.SetInParent()
    if "seccomp" in linux:
        message.seccomp_policy.CopyFrom(_seccomp(linux["seccomp"]))
    for name, device in linux.get("netDevices", {}).items():
        message.net_devices[name].name = device.get("name", "")
    return message


def _rdt(rdt: Mapping[str, Any]) -> nri.LinuxRdt:
    message = nri.LinuxRdt()
    if "closID" in rdt:
        put(message.clos_id, rdt["closID"])
    if "schemata" in rdt:
        message.schemata.value.extend(rdt["schemata"])
    if "enableMonitoring" in rdt:
        put(message.enable_monitoring, rdt["enableMonitoring"])
    return message


def _device(device: Mapping[str, Any]) -> nri.LinuxDevice:
    message = nri.LinuxDevice(
        path=device["path"], type=device["type"], major=device.get("major", 0), minor=device.get("minor", 0)
    )
    for name, word in (("file_mode", "fileMode"), ("uid", "uid"), ("gid", "gid")):
        if device.get(word) is not None:
            put(getattr(message, name), device[word])
    return message


def _seccomp(policy: Mapping[str, Any]) -> nri.LinuxSeccomp:
    message = nri.LinuxSeccomp(
        default_action=policy["defaultAction"],
        architectures=policy.get("architectures", []),
        flags=policy.get("flags", []),
        listener_path=policy.get("listenerPath", ""),
        listener_metadata=policy.get("listenerMetadata", ""),
    )
    if "defaultErrnoRet" in policy:
        put(message.default_errno, policy["defaultErrnoRet"])
    for rule in policy.get("syscalls", []):
        syscall = message.syscalls.add(names=rule["names"], action=rule["action"])
        if "errnoRet" in rule:
            put(syscall.errno_ret, rule["errnoRet"])
        for arg in rule.get("args", []):
            syscall.args.add(index=arg["index"], value=arg["value"], value_two=arg.get("valueTwo", 0), op=arg["op"])
    return message
