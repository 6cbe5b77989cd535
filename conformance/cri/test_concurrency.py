"""The same call twice, calls at once, cancelled calls, deadlines that pass in the middle, and what is left of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from conformance.cri.subject import SLEEP
from shim.gen.runtime.v1 import api_pb2
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.cri.subject import Pod, Subject

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
