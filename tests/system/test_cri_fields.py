"""Every field of every request, alone and with what it should never hold: an answer soon, not the daemon's fault, nothing left.

What a field may hold is mostly told by no rule but "the kernel takes it", so an answer may be a success. It may not be UNKNOWN
or INTERNAL, which say that nobody has thought of it.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor

from shim.gen.runtime.v1 import api_pb2
from tests.support.daemon import BUSYBOX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor

    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

    Path = tuple[str, ...]

pytestmark = pytest.mark.system

Code = grpc.StatusCode
OURS = frozenset((Code.UNKNOWN, Code.INTERNAL, Code.DEADLINE_EXCEEDED, Code.CANCELLED))
"""Codes that say the fault is not the request's."""
BOUND = 10.0
INTEGERS = (-1, -(2**63), 2**63 - 1, 2**31, 1)
LIMITS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}
STRINGS = ("\0", "../../../x", "a\nb:c,d=e", "x" * 70_000)
THEIRS = ("ExecSync cmd ",)
"""What fails by UNKNOWN as the peers have it: clients look for the words, which tell that there is no such program."""


def leaves(message: Descriptor, above: Path = ()) -> Iterator[tuple[Path, FieldDescriptor]]:
    """Give the way to each field that is no message; of a map both key and value are one leaf."""
    for field in message.fields:
        inner = field.message_type
        if inner is None or inner.GetOptions().map_entry:
            yield (*above, field.name), field
        elif field.name != "windows":
            yield from leaves(inner, (*above, field.name))


def values(field: FieldDescriptor) -> tuple[Any, ...]:
    if field.type in LIMITS:
        low, high = LIMITS[field.type]
        return tuple(sorted({min(max(value, low), high) for value in INTEGERS}))
    return {
        FieldDescriptor.TYPE_ENUM: (99,),
        FieldDescriptor.TYPE_BOOL: (True,),
        FieldDescriptor.TYPE_BYTES: (b"\0\xff", b"x" * 200_000),
    }.get(field.type, STRINGS)


def spoil(request: Any, path: Path, field: FieldDescriptor, value: Any) -> None:
    """Set one field; in a list it is one more item."""
    at = request
    for step in path[:-1]:
        inner = getattr(at, step)
        repeated = at.DESCRIPTOR.fields_by_name[step].is_repeated
        at = (inner[0] if len(inner) else inner.add()) if repeated else inner
    if field.message_type is not None:  # a map
        getattr(at, path[-1])[value] = value
    elif field.is_repeated:
        getattr(at, path[-1]).append(value)
    else:
        setattr(at, path[-1], value)


def left(wherryd: Wherryd) -> list[str]:
    folders = (wherryd.netns, wherryd.root / "pods", wherryd.root / "containers", wherryd.state / "pods", wherryd.state / "oci")
    return [f"{folder.name}/{name}" for folder in folders if folder.exists() for name in os.listdir(folder)]


class Judge:
    """Sends a request of one kind in all its spoilt forms."""

    def __init__(self, wherryd: Wherryd) -> None:
        self.cri = wherryd.cri
        self.wherryd = wherryd
        self.faults: list[str] = []

    def send(self, rpc: str, request: Any, what: str) -> Any:
        """Give the answer, None for an error."""
        service = self.cri.runtime if hasattr(self.cri.runtime, rpc) else self.cri.images
        started = time.monotonic()
        answer = None
        try:
            answer = getattr(service, rpc)(request, timeout=BOUND)
            if hasattr(answer, "__next__"):
                answer = list(answer)
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            if (code in OURS and not what.startswith(THEIRS)) or "Traceback" in details or not details:
                self.faults.append(f"{what}: {code.name} {details[:300]}")
            if "99" in what and code is not Code.INVALID_ARGUMENT:
                self.faults.append(f"{what}: {code.name} {details[:300]}")
        else:
            if what.endswith(" 99"):
                self.faults.append(f"{what}: served")
        if time.monotonic() - started > BOUND / 2:
            self.faults.append(f"{what}: took {time.monotonic() - started:.1f} s")
        return answer


def cases(request: Any) -> Iterator[tuple[Path, FieldDescriptor, Any, str]]:
    for path, field in leaves(request.DESCRIPTOR):
        for value in values(field):
            shown = str(value)[:20]
            yield (
                path,
                field,
                value,
                f"{'.'.join(path)} {shown!r}" if not isinstance(value, int) else f"{'.'.join(path)} {value}",
            )


def test_pods(wherryd: Wherryd, pods: PodMaker) -> None:
    judge = Judge(wherryd)
    for path, field, value, name in cases(api_pb2.RunPodSandboxRequest()):
        request = api_pb2.RunPodSandboxRequest(config=pods.pod(host_network=True))
        spoil(request, path, field, value)
        answer = judge.send("RunPodSandbox", request, name)
        if answer is not None:
            judge.cri.remove_pod(answer.pod_sandbox_id)
        if left(wherryd):
            judge.faults.append(f"{name}: left {left(wherryd)}")
            judge.cri.remove_all()
    assert judge.cri.pods() == []
    assert not judge.faults, "\n".join(judge.faults)


def test_containers(wherryd: Wherryd, pods: PodMaker) -> None:
    judge = Judge(wherryd)
    config = pods.pod(host_network=True)
    pod = judge.cri.run_pod(config)
    before = left(wherryd)
    for path, field, value, name in cases(api_pb2.CreateContainerRequest()):
        if path[0] == "sandbox_config":
            continue  # the pod has the configuration it was run with
        request = api_pb2.CreateContainerRequest(pod_sandbox_id=pod, config=pods.container(BUSYBOX, ["true"]))
        spoil(request, path, field, value)
        answer = judge.send("CreateContainer", request, name)
        if answer is not None:
            judge.cri.remove(answer.container_id)
        if left(wherryd) != before:
            judge.faults.append(f"{name}: left {set(left(wherryd)) - set(before)}")
            before = left(wherryd)
    assert judge.cri.containers() == []
    assert not judge.faults, "\n".join(judge.faults)


SLOW = frozenset(("GetContainerEvents", "StreamPodSandboxMetrics", "RunPodSandbox", "CreateContainer", "UpdateRuntimeConfig"))
"""Streams without an end, and what is judged above or elsewhere."""


def test_everything_else(wherryd: Wherryd, pods: PodMaker) -> None:
    judge = Judge(wherryd)
    config = pods.pod(host_network=True)
    pod = judge.cri.run_pod(config)
    container = judge.cri.create(pod, pods.container(BUSYBOX, ["sleep", "1000"]), config)
    judge.cri.start(container)
    whole = {"pod_sandbox_id": pod, "container_id": container}
    for service in api_pb2.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            if method.name in SLOW or method.name.startswith(("Stop", "Remove")):
                continue
            kind = getattr(api_pb2, method.input_type.name)
            names = {name: value for name, value in whole.items() if name in kind.DESCRIPTOR.fields_by_name}
            for path, field, value, name in cases(kind()):
                request = kind(**names)
                spoil(request, path, field, value)
                judge.send(method.name, request, f"{method.name} {name}")
    assert judge.cri.status(container).state == api_pb2.CONTAINER_RUNNING
    assert not judge.faults, "\n".join(judge.faults)


def test_what_ends_something(wherryd: Wherryd, pods: PodMaker) -> None:
    """Any time to stop within, also none and one before now; ids that nobody has are nobody's."""
    judge = Judge(wherryd)
    cri, config = wherryd.cri, pods.pod(host_network=True)
    pod = cri.run_pod(config)
    for timeout in sorted({*INTEGERS, -5}):
        obedient = ["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done"]
        container = cri.create(pod, pods.container(BUSYBOX, obedient, name=f"c{timeout}"), config)
        cri.start(container)
        request = api_pb2.StopContainerRequest(container_id=container, timeout=timeout)
        judge.send("StopContainer", request, f"StopContainer timeout {timeout}")
        if cri.status(container).state != api_pb2.CONTAINER_EXITED:
            judge.faults.append(f"StopContainer timeout {timeout}: still running")
            cri.stop(container)
        cri.remove(container)
    for word in ("StopContainer", "RemoveContainer", "StopPodSandbox", "RemovePodSandbox", "RemoveImage"):
        kind = getattr(api_pb2, f"{word}Request")
        for path, field, value, name in cases(kind()):
            request = kind()
            spoil(request, path, field, value)
            judge.send(word, request, f"{word} {name}")
    assert [one.id for one in cri.pods()] == [pod]
    assert not judge.faults, "\n".join(judge.faults)
