"""Clients older or newer than the endpoint: fields nobody knows are no fault, and calls nobody serves are told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from conformance.cri.subject import SLEEP, Code, refused
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from conformance.cri.subject import Pod, Subject

UNKNOWN = bytes.fromhex("fa3f03616263c04007")
"""Field 1023 with three bytes and field 1032 with a number, as a newer client would add them."""


def call(subject: Subject, name: str, request: bytes) -> bytes:
    """Make a call with a request that is encoded already, and give the answer as it came."""
    service = "ImageService" if "Image" in name else "RuntimeService"
    cri = subject.images if "Image" in name else subject.cri
    method = cri.channel.unary_unary(f"/runtime.v1.{service}/{name}", request_serializer=bytes, response_deserializer=bytes)
    return bytes(method(request, timeout=30))


def grown(message: Message) -> bytes:
    """Give a message with fields of a newer API in it and in each message it holds directly."""
    parts = [UNKNOWN]
    for field, value in message.ListFields():
        alone = type(message)()
        if field.message_type is None or field.is_repeated:
            alone.MergeFrom(message)
            for other, _ in message.ListFields():
                if other.name != field.name:
                    alone.ClearField(other.name)
        else:
            inner = type(value).FromString(grown(value))
            getattr(alone, field.name).CopyFrom(inner)
        parts.append(alone.SerializeToString())
    return b"".join(parts)


@pytest.mark.parametrize(
    "name",
    [
        "Version",
        "Status",
        "ListContainers",
        "ListPodSandbox",
        "ListContainerStats",
        "ListImages",
        "ImageFsInfo",
        "RuntimeConfig",
    ],
)
def test_unknown_fields_of_a_question(subject: Subject, name: str) -> None:
    call(subject, name, UNKNOWN)


def test_a_pod_of_a_newer_client(subject: Subject) -> None:
    config = subject.pod()
    answer = call(subject, "RunPodSandbox", grown(api_pb2.RunPodSandboxRequest(config=config)))
    pod = subject.adopt(config, api_pb2.RunPodSandboxResponse.FromString(answer).pod_sandbox_id)
    order = api_pb2.CreateContainerRequest(pod_sandbox_id=pod.id, config=pod.order(), sandbox_config=config)
    answer = call(subject, "CreateContainer", grown(order))
    container = api_pb2.CreateContainerResponse.FromString(answer).container_id
    call(subject, "StartContainer", grown(api_pb2.StartContainerRequest(container_id=container)))
    assert subject.cri.status(container).state == api_pb2.CONTAINER_RUNNING


def test_a_container_of_an_older_client(pod: Pod) -> None:
    order = pod.make.container(pod.image, SLEEP, name="old")
    order.ClearField("linux")
    container = pod.cri.create(pod.id, order, pod.config)
    pod.cri.start(container)
    assert pod.cri.status(container).state == api_pb2.CONTAINER_RUNNING


def test_a_call_that_is_not_there(subject: Subject) -> None:
    refused(lambda: call(subject, "NoSuchCall", b""), Code.UNIMPLEMENTED)


def test_a_request_that_is_no_message(subject: Subject) -> None:
    before = subject.pod_ids()
    with pytest.raises(grpc.RpcError):
        call(subject, "RunPodSandbox", b"\xff" * 8)
    assert subject.pod_ids() == before


def test_large_messages(subject: Subject, shared_pod: Pod) -> None:
    """kubelet takes answers of up to 16 MiB, and a container's annotations alone may fill 12."""
    order = shared_pod.order(annotations={f"k{number}": "x" * (1 << 18) for number in range(48)})
    container = subject.cri.create(shared_pod.id, order, shared_pod.config)
    try:
        assert len(subject.cri.status(container).annotations) == 48
    finally:
        subject.cri.remove(container)
