"""The same call twice, calls at once, cancelled calls, deadlines that pass in the middle, and what is left of them."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from conformance.cri.subject import SLEEP, log_texts, wait_log
from shim.gen.runtime.v1 import api_pb2
from tests.support.images import TestImage, files_layer
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.cri.subject import Pod, Subject
    from tests.support.registry import Registry

RESERVED = "reserved"
"""Word of containerd's and CRI-O's answer to the second of two equal calls that run at the same time."""


def _answers(call: Callable[[], Any], count: int = 4) -> tuple[list[Any], list[str]]:
    """Make the same call so many times at once; give the answers and the messages of the refusals."""

    def one(_number: int) -> tuple[Any, str]:
        try:
            return call(), ""
        except grpc.RpcError as error:
            return None, error.details() or error.code().name

    with ThreadPoolExecutor(count) as threads:
        found = list(threads.map(one, range(count)))
    return [answer for answer, message in found if not message], [message for _answer, message in found if message]


def _pods(subject: Subject, config: api_pb2.PodSandboxConfig) -> list[str]:
    return [pod.id for pod in subject.cri.pods() if pod.metadata.uid == config.metadata.uid]


def test_equal_pods_at_once_are_one(subject: Subject) -> None:
    config = subject.pod()
    made, messages = _answers(lambda: subject.cri.run_pod(config, subject.handler))
    for pod in set(made):
        subject.adopt(config, pod)
    assert len(set(made)) == 1
    assert all(RESERVED in message for message in messages), messages
    assert _pods(subject, config) == made[:1]


def test_equal_pods_at_once_all_get_the_answer(subject: Subject) -> None:
    config = subject.pod()
    made, messages = _answers(lambda: subject.cri.run_pod(config, subject.handler))
    subject.adopt(config, made[0])
    assert messages == []


def test_equal_containers_at_once_are_one(subject: Subject, pod: Pod) -> None:
    order = pod.order()
    made, messages = _answers(lambda: subject.cri.create(pod.id, order, pod.config))
    assert len(set(made)) == 1
    assert all(RESERVED in message for message in messages), messages
    assert [one.id for one in pod.containers] == made[:1]


def test_equal_containers_at_once_all_get_the_answer(subject: Subject, pod: Pod) -> None:
    order = pod.order()
    assert _answers(lambda: subject.cri.create(pod.id, order, pod.config))[1] == []


def test_a_pod_again_is_no_second_pod(subject: Subject, pod: Pod) -> None:
    made, messages = _answers(lambda: subject.cri.run_pod(pod.config, subject.handler), 1)
    assert made == [pod.id] or messages
    assert _pods(subject, pod.config) == [pod.id]


def test_starts_at_once(subject: Subject, pod: Pod) -> None:
    container = pod.create()
    made, _messages = _answers(lambda: subject.cri.start(container))
    assert made
    assert subject.cri.status(container).state == api_pb2.CONTAINER_RUNNING


def test_stops_at_once(subject: Subject, pod: Pod) -> None:
    container = pod.run()
    assert _answers(lambda: subject.cri.stop(container))[1] == []
    assert subject.cri.status(container).state == api_pb2.CONTAINER_EXITED


def test_removals_at_once(subject: Subject, pod: Pod) -> None:
    container = pod.run()
    assert _answers(lambda: subject.cri.remove(container), 2)[0]
    wait_for(lambda: container not in subject.container_ids(), "the container to be gone")


def test_stops_of_a_pod_at_once(subject: Subject, pod: Pod) -> None:
    pod.run()
    request = api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id)
    assert _answers(lambda: subject.cri.runtime.StopPodSandbox(request, timeout=30))[1] == []
    assert subject.cri.pod_status(pod.id).state == api_pb2.SANDBOX_NOTREADY


def test_pods_at_once(subject: Subject) -> None:
    with ThreadPoolExecutor(6) as threads:
        pods = list(threads.map(lambda _number: subject.run(), range(6)))
        containers = list(threads.map(lambda pod: pod.run(), pods))
    assert len({pod.id for pod in pods}) == len(set(containers)) == 6
    assert {subject.cri.status(one).state for one in containers} == {api_pb2.CONTAINER_RUNNING}


def test_containers_of_a_pod_at_once(pod: Pod) -> None:
    with ThreadPoolExecutor(6) as threads:
        containers = list(threads.map(lambda _number: pod.run(), range(6)))
    assert {one.id for one in pod.containers} == set(containers)


def test_lists_while_pods_come_and_go(subject: Subject) -> None:
    with ThreadPoolExecutor(1) as threads:
        coming = threads.submit(lambda: [subject.run().run() for _ in range(3)])
        while not coming.done():
            subject.cri.pods()
            subject.cri.containers()
        coming.result()


DELAYS = (0.0, 0.002, 0.01, 0.03, 0.1)
"""Seconds after which calls are left, to leave them at different steps."""


def _whole(subject: Subject, config: api_pb2.PodSandboxConfig) -> None:
    """Demand that the call can be repeated as if it had never been made: kubelet does, and gets one whole pod."""
    pod = _retry(lambda: subject.run_config(config))
    assert _ready(subject, config) == [pod.id]
    assert pod.finish(("true",)).exit_code == 0


def _ready(subject: Subject, config: api_pb2.PodSandboxConfig) -> list[str]:
    return [
        pod.id for pod in subject.cri.pods() if pod.metadata.uid == config.metadata.uid and pod.state == api_pb2.SANDBOX_READY
    ]


@pytest.mark.parametrize("delay", DELAYS)
def test_a_pod_whose_call_is_cancelled(subject: Subject, delay: float) -> None:
    config = subject.pod(network=True)
    request = api_pb2.RunPodSandboxRequest(config=config, runtime_handler=subject.handler)
    call = subject.cri.runtime.RunPodSandbox.future(request, timeout=30)
    _leave(call, delay)
    _whole(subject, config)


@pytest.mark.parametrize("delay", DELAYS)
def test_a_pod_whose_deadline_passes(subject: Subject, delay: float) -> None:
    config = subject.pod(network=True)
    request = api_pb2.RunPodSandboxRequest(config=config, runtime_handler=subject.handler)
    call = subject.cri.runtime.RunPodSandbox.future(request, timeout=max(delay, 0.001))
    call.exception()
    _whole(subject, config)


@pytest.mark.parametrize("delay", DELAYS[::2])
def test_a_container_whose_call_is_cancelled(subject: Subject, pod: Pod, delay: float) -> None:
    order = pod.order(SLEEP)
    request = api_pb2.CreateContainerRequest(pod_sandbox_id=pod.id, config=order, sandbox_config=pod.config)
    call = subject.cri.runtime.CreateContainer.future(request, timeout=30)
    _leave(call, delay)
    container = _retry(lambda: subject.cri.create(pod.id, order, pod.config))
    assert container in {one.id for one in pod.containers}
    subject.cri.start(container)
    assert len([one for one in pod.containers if one.state == api_pb2.CONTAINER_RUNNING]) == 1


def _leave(call: Any, delay: float) -> None:
    """Wait for the answer so long, and cancel."""
    try:
        call.exception(timeout=delay)
    except grpc.FutureTimeoutError:
        call.cancel()


def _retry(call: Callable[[], Any]) -> Any:
    """Repeat a call as kubelet would while the name is taken by what is still being undone."""

    def attempt() -> Any:
        try:
            return call()
        except grpc.RpcError as error:
            if RESERVED not in (error.details() or ""):
                raise
            return None

    return wait_for(attempt, "the name to be free", seconds=4)


def test_retry_of_a_cancelled_pod_need_not_wait(subject: Subject) -> None:
    config = subject.pod(network=True)
    request = api_pb2.RunPodSandboxRequest(config=config, runtime_handler=subject.handler)
    for delay in DELAYS:
        call = subject.cri.runtime.RunPodSandbox.future(request, timeout=30)
        _leave(call, delay)
        pod = subject.run_config(config)
        subject.cri.remove_pod(pod.id)


def test_removals_of_a_pod_at_once(subject: Subject, pod: Pod) -> None:
    container = pod.run()
    request = api_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod.id)
    assert _answers(lambda: subject.cri.runtime.RemovePodSandbox(request, timeout=30))[0]
    wait_for(lambda: pod.id not in subject.pod_ids(), "the pod to be gone")
    assert container not in subject.container_ids()


def test_removals_of_an_image_at_once(subject: Subject, registry: Registry) -> None:
    image = TestImage(layers=(files_layer({"note": uuid.uuid4().hex}),))
    name = registry.push(f"once/{uuid.uuid4().hex[:8]}", "1", image)
    subject.images.pull(name)
    request = api_pb2.RemoveImageRequest(image=api_pb2.ImageSpec(image=name))
    assert _answers(lambda: subject.images.images.RemoveImage(request, timeout=30))[0]
    status = subject.images.images.ImageStatus(api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=name)), timeout=10)
    assert not status.HasField("image")


def test_updates_at_once(subject: Subject, pod: Pod) -> None:
    container = pod.run()
    request = api_pb2.UpdateContainerResourcesRequest(
        container_id=container, linux=api_pb2.LinuxContainerResources(cpu_shares=333, memory_limit_in_bytes=96 << 20)
    )
    assert _answers(lambda: subject.cri.runtime.UpdateContainerResources(request, timeout=30))[1] == []
    shown = subject.cri.status(container).resources.linux
    assert (shown.cpu_shares, shown.memory_limit_in_bytes) == (333, 96 << 20)


def test_reopened_at_once(subject: Subject, pod: Pod) -> None:
    container = pod.run(("sh", "-c", "n=0; while :; do echo line $n; n=$((n+1)); sleep 0.02; done"))
    path = subject.cri.status(container).log_path
    wait_log(path, "line", 5)
    request = api_pb2.ReopenContainerLogRequest(container_id=container)
    assert _answers(lambda: subject.cri.runtime.ReopenContainerLog(request, timeout=30))[1] == []
    count = len(log_texts(path))
    wait_for(lambda: len(log_texts(path)) > count + 3, "the log to go on")
    subject.cri.stop(container)
    lines = [int(text.split()[-1]) for text in log_texts(path)]
    assert lines == list(range(len(lines)))


IGNORES = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")


def test_a_stop_whose_call_is_cancelled(subject: Subject, pod: Pod) -> None:
    """kubelet takes a long grace period back by a stop with a shorter one."""
    container = pod.run(IGNORES)
    wait_log(subject.cri.status(container).log_path, "ready")
    call = subject.cri.runtime.StopContainer.future(
        api_pb2.StopContainerRequest(container_id=container, timeout=30), timeout=60
    )
    _leave(call, 0.3)
    started = time.monotonic()
    subject.cri.stop(container)
    assert time.monotonic() - started < 10
    assert subject.cri.status(container).exit_code == 137


def test_a_stop_whose_deadline_passes(subject: Subject, pod: Pod) -> None:
    container = pod.run(IGNORES)
    wait_log(subject.cri.status(container).log_path, "ready")
    with pytest.raises(grpc.RpcError) as caught:
        subject.cri.runtime.StopContainer(api_pb2.StopContainerRequest(container_id=container, timeout=30), timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    subject.cri.stop(container)
    assert subject.cri.status(container).exit_code == 137


@pytest.mark.parametrize("delay", DELAYS[:4])
def test_a_start_whose_call_is_cancelled(subject: Subject, pod: Pod, delay: float) -> None:
    """It has started, or can be started, or has failed and can be replaced; it is nothing in between."""
    container = pod.create()
    call = subject.cri.runtime.StartContainer.future(api_pb2.StartContainerRequest(container_id=container), timeout=30)
    _leave(call, delay)

    def settled() -> bool:
        if subject.cri.status(container).state == api_pb2.CONTAINER_CREATED:
            with suppress(grpc.RpcError):  # it may still be under way
                subject.cri.start(container)
        return subject.cri.status(container).state in {api_pb2.CONTAINER_RUNNING, api_pb2.CONTAINER_EXITED}

    wait_for(settled, "the container to have started, or not", seconds=15)
    subject.cri.remove(container)
    assert pod.finish(("true",)).exit_code == 0


@pytest.mark.parametrize("name", ["StopPodSandbox", "RemovePodSandbox"])
def test_the_end_of_a_pod_whose_call_is_cancelled(subject: Subject, name: str) -> None:
    for delay in DELAYS[:4]:
        pod = subject.run(network=True)
        pod.run()
        request = getattr(api_pb2, f"{name}Request")(pod_sandbox_id=pod.id)
        _leave(getattr(subject.cri.runtime, name).future(request, timeout=30), delay)
        getattr(subject.cri.runtime, name)(request, timeout=30)
        with suppress(grpc.RpcError):  # it may have gone already
            subject.cri.remove_pod(pod.id)
        assert pod.id not in subject.pod_ids()


def test_a_stream_that_is_left(subject: Subject) -> None:
    for _ in range(5):
        call = subject.cri.runtime.GetContainerEvents(api_pb2.GetEventsRequest())
        call.cancel()
    subject.cri.pods()
