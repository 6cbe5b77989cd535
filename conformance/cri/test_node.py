"""Version, Status, RuntimeConfig, and that every RPC is served."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2, api_pb2_grpc

if TYPE_CHECKING:
    from conformance.cri.subject import Subject

METHODS = {
    method.name: service
    for service in ("RuntimeService", "ImageService")
    for method in api_pb2.DESCRIPTOR.services_by_name[service].methods
}
CONDITIONS = ("RuntimeReady", "NetworkReady")


@pytest.mark.parametrize("name", METHODS)
def test_rpc_is_served(subject: Subject, name: str) -> None:
    service = api_pb2.DESCRIPTOR.services_by_name[METHODS[name]]
    method = service.methods_by_name[name]
    channel = (subject.cri if METHODS[name] == "RuntimeService" else subject.images).channel
    call = getattr(getattr(api_pb2_grpc, f"{METHODS[name]}Stub")(channel), name)
    request = getattr(api_pb2, method.input_type.name)()
    code, details = grpc.StatusCode.OK, ""
    try:
        answer = call(request, timeout=1 if method.server_streaming else 5)
        if method.server_streaming:
            next(iter(answer), None)
    except grpc.RpcError as error:
        code, details = error.code(), error.details() or ""
    assert code is not grpc.StatusCode.UNIMPLEMENTED, details


def test_version_names_the_runtime(subject: Subject) -> None:
    version = subject.cri.runtime.Version(api_pb2.VersionRequest(), timeout=5)
    assert version.version == "0.1.0"
    assert version.runtime_name
    assert version.runtime_version
    assert version.runtime_api_version == "v1"


def test_version_of_an_unknown_client_is_answered(subject: Subject) -> None:
    assert subject.cri.runtime.Version(api_pb2.VersionRequest(version="9.9"), timeout=5).runtime_name == subject.name


@pytest.mark.parametrize("name", CONDITIONS)
def test_condition_is_true(subject: Subject, name: str) -> None:
    status = subject.cri.runtime.Status(api_pb2.StatusRequest(), timeout=5).status
    assert {one.type: one.status for one in status.conditions}[name] is True


def test_status_is_brief_unless_asked(subject: Subject) -> None:
    assert not subject.cri.runtime.Status(api_pb2.StatusRequest(), timeout=5).info


def test_verbose_status_is_json(subject: Subject) -> None:
    info = subject.cri.runtime.Status(api_pb2.StatusRequest(verbose=True), timeout=5).info
    assert info
    assert isinstance(json.loads(info["config"]), dict)


def _handlers(subject: Subject) -> dict[str, Any]:
    return {one.name: one for one in subject.cri.runtime.Status(api_pb2.StatusRequest(), timeout=5).runtime_handlers}


def test_handlers_have_a_default(subject: Subject) -> None:
    assert "" in _handlers(subject)


@pytest.mark.parametrize("name", ["recursive_read_only_mounts", "user_namespaces"])
def test_default_handler_has_a_feature(subject: Subject, name: str) -> None:
    assert getattr(_handlers(subject)[""].features, name) is True


def test_status_tells_of_supplemental_groups_policy(subject: Subject) -> None:
    assert subject.cri.runtime.Status(api_pb2.StatusRequest(), timeout=5).features.supplemental_groups_policy is True


def test_status_tells_of_user_namespaces_in_the_node_s_network(subject: Subject) -> None:
    """It is told as it is: where it says so, such a pod runs; elsewhere it is refused."""
    told = subject.cri.runtime.Status(api_pb2.StatusRequest(), timeout=5).features.user_namespaces_host_network
    config = subject.pod()
    mapping = api_pb2.IDMapping(host_id=1_000_000, container_id=0, length=65536)
    options = api_pb2.UserNamespace(mode=api_pb2.POD, uids=[mapping], gids=[mapping])
    config.linux.security_context.namespace_options.userns_options.CopyFrom(options)
    try:
        ran = subject.run_config(config).finish(("true",)).exit_code == 0
    except grpc.RpcError:
        ran = False
    assert ran is told


def test_status_tells_of_mount_options(subject: Subject) -> None:
    assert subject.cri.runtime.Status(api_pb2.StatusRequest(), timeout=5).features.mount_options is True


def test_runtime_config_has_a_driver(subject: Subject) -> None:
    config = subject.cri.runtime.RuntimeConfig(api_pb2.RuntimeConfigRequest(), timeout=5)
    assert config.HasField("linux")
    assert config.linux.cgroup_driver in (api_pb2.CGROUPFS, api_pb2.SYSTEMD)


def test_an_empty_runtime_config_changes_nothing(subject: Subject) -> None:
    for _ in range(2):
        subject.cri.runtime.UpdateRuntimeConfig(api_pb2.UpdateRuntimeConfigRequest(), timeout=5)
    status = subject.cri.runtime.Status(api_pb2.StatusRequest(), timeout=5).status
    assert all(one.status for one in status.conditions if one.type in CONDITIONS)


def test_an_unknown_method_is_unimplemented(subject: Subject) -> None:
    call = subject.cri.channel.unary_unary(
        "/runtime.v1.RuntimeService/NoSuchMethod", request_serializer=bytes, response_deserializer=bytes
    )
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_broken_message_is_refused(subject: Subject) -> None:
    call = subject.cri.channel.unary_unary(
        "/runtime.v1.RuntimeService/RunPodSandbox", request_serializer=bytes, response_deserializer=bytes
    )
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff\xff\xff\xff\xff", timeout=5)
    assert caught.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNKNOWN)
