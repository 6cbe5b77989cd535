"""Namespaces: which ones a container joins, gets or shares with the node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shim.container.spec.host import CgroupLayout
from shim.errors import FailedPrecondition, InvalidArgument
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shim.container.spec.inputs import SpecInputs
    from shim.gen.runtime.v1.api_pb2 import IDMapping, NamespaceOption, UserNamespace

POD, CONTAINER, NODE, TARGET = api_pb2.POD, api_pb2.CONTAINER, api_pb2.NODE, api_pb2.TARGET


def pod_options(inputs: SpecInputs) -> NamespaceOption:
    """Give the pod's NamespaceOption, whose defaults are POD everywhere."""
    return inputs.pod.linux.security_context.namespace_options


def pid_mode(inputs: SpecInputs) -> int:
    """Give the container's pid mode; a container that says nothing follows its pod."""
    security = inputs.config.linux.security_context
    if security.HasField("namespace_options"):
        return security.namespace_options.pid
    return pod_options(inputs).pid


def linux_namespaces(inputs: SpecInputs) -> list[dict[str, str]]:
    """Give linux.namespaces: always an own mount namespace, the pod's or the node's net, ipc and uts, and pid as asked.

    The uts namespace follows the network, as kubelet has no field of its own for it. The cgroup namespace hides the node's
    hierarchy on cgroup v2; on v1 and in privileged containers the node's stays visible, as containerd has it.
    """
    options = pod_options(inputs)
    spec = [{"type": "mount"}]
    spec += _pid(inputs)
    if options.network != NODE:
        spec += [_pinned(inputs, "network"), _pinned(inputs, "uts")]
    if options.ipc != NODE:
        spec.append(_pinned(inputs, "ipc"))
    privileged = inputs.config.linux.security_context.privileged
    if inputs.host.cgroup_layout is CgroupLayout.V2 and not privileged:
        spec.append({"type": "cgroup"})
    if uses_user_namespace(options.userns_options):
        spec.append(_pinned(inputs, "user"))
    return spec


def _pid(inputs: SpecInputs) -> list[dict[str, str]]:
    mode = pid_mode(inputs)
    if mode == CONTAINER:
        return [{"type": "pid"}]
    if mode == TARGET:
        if not inputs.target_pid_path:
            raise FailedPrecondition("the container that namespace_options.target_id names has no pid namespace to join")
        return [{"type": "pid", "path": inputs.target_pid_path}]
    if pod_options(inputs).pid == NODE:
        return []
    path = inputs.pod_namespaces.get("pid")
    if not path:
        raise FailedPrecondition("the pod has no shared pid namespace, which namespace_options.pid POD asks for")
    return [{"type": "pid", "path": path}]


def _pinned(inputs: SpecInputs, kind: str) -> dict[str, str]:
    path = inputs.pod_namespaces.get(kind)
    return {"type": kind, "path": path} if path else {"type": kind}


def uses_user_namespace(options: UserNamespace) -> bool:
    """Tell whether a pod with these options has a user namespace of its own; absent options mean the node's."""
    return options.mode == POD and bool(options.uids or options.gids)


def id_mappings(mappings: Iterable[IDMapping]) -> list[dict[str, int]]:
    """Give CRI id mappings in OCI's words."""
    return [{"containerID": x.container_id, "hostID": x.host_id, "size": x.length} for x in mappings]


def user_mappings(inputs: SpecInputs) -> dict[str, Any]:
    """Give linux.uidMappings and gidMappings of a pod with a user namespace, nothing otherwise."""
    options = pod_options(inputs).userns_options
    if not uses_user_namespace(options):
        return {}
    if not inputs.features.user_namespaces:
        raise InvalidArgument("namespace_options.userns_options asks for a user namespace, which the runtime handler lacks")
    _check_mapped("user", (inputs.user.uid,), options.uids)
    _check_mapped("group", inputs.user.groups, options.gids)
    return {"uidMappings": id_mappings(options.uids), "gidMappings": id_mappings(options.gids)}


def _check_mapped(kind: str, ids: Iterable[int], mappings: Iterable[IDMapping]) -> None:
    ranges = [range(x.container_id, x.container_id + x.length) for x in mappings]
    for value in ids:
        if not any(value in one for one in ranges):
            known = ", ".join(f"{one.start}..{one.stop - 1}" for one in ranges)
            raise InvalidArgument(f"the container's {kind} {value} is not in the pod's user namespace, which has {known}")
