"""GetContainerEvents: what is told of a life, once, in order, with the state at that time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.cri.subject import Pod, Subject

CREATED, STARTED = api_pb2.CONTAINER_CREATED_EVENT, api_pb2.CONTAINER_STARTED_EVENT
STOPPED, DELETED = api_pb2.CONTAINER_STOPPED_EVENT, api_pb2.CONTAINER_DELETED_EVENT
LIFE = [CREATED, STARTED, STOPPED, DELETED]


class Listener:
    """A client that notes what it is told."""

    def __init__(self, subject: Subject) -> None:
        self.heard: list[api_pb2.ContainerEventResponse] = []
        self.call: Any = subject.cri.runtime.GetContainerEvents(api_pb2.GetEventsRequest())
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        try:
            for event in self.call:
                self.heard.append(event)
        except grpc.RpcError:
            return

    def of(self, item: str) -> list[int]:
        return [event.container_event_type for event in self.heard if event.container_id == item]

    def end(self) -> None:
        self.call.cancel()
        self.thread.join(10)


@pytest.fixture
def listener(subject: Subject) -> Iterator[Listener]:
    found = Listener(subject)
    pod = subject.run()  # whoever sends no headers before the first event has to be given one
    wait_for(lambda: pod.id in {event.container_id for event in found.heard} or not found.thread.is_alive(), "the first event")
    assert found.thread.is_alive(), found.call.details()
    yield found
    found.end()


@pytest.fixture
def lived(subject: Subject, listener: Listener) -> tuple[Pod, str, Listener]:
    """Give a pod and a container that have lived and gone, and who listened."""
    pod = subject.run()
    container = pod.finish(("sh", "-c", "exit 3")).id
    subject.cri.remove(container)
    subject.cri.remove_pod(pod.id)
    wait_for(lambda: DELETED in listener.of(pod.id), "the end to be told")
    return pod, container, listener


def test_life_of_a_container(lived: tuple[Pod, str, Listener]) -> None:
    assert lived[2].of(lived[1]) == LIFE


def test_life_of_a_pod(lived: tuple[Pod, str, Listener]) -> None:
    assert lived[2].of(lived[0].id) == LIFE


def test_events_have_the_pod_s_status(lived: tuple[Pod, str, Listener]) -> None:
    pod, container, listener = lived
    for event in listener.heard:
        if event.container_id in {pod.id, container} and event.container_event_type in {CREATED, STARTED}:
            assert event.pod_sandbox_status.id == pod.id
            assert event.created_at > 0


def test_end_has_the_exit_code(lived: tuple[Pod, str, Listener]) -> None:
    _pod, container, listener = lived
    (event,) = (one for one in listener.heard if (one.container_id, one.container_event_type) == (container, STOPPED))
    (status,) = (one for one in event.containers_statuses if one.id == container)
    assert (status.state, status.exit_code) == (api_pb2.CONTAINER_EXITED, 3)


def test_two_listeners_hear_the_same(subject: Subject, listener: Listener) -> None:
    second = Listener(subject)
    try:
        first = subject.run()
        wait_for(lambda: second.of(first.id), "the second to hear", seconds=5)
        pod = subject.run()
        subject.cri.remove_pod(pod.id)
        for one in (listener, second):
            wait_for(lambda one=one: DELETED in one.of(pod.id), "the end to be told")  # type: ignore[misc]  # no default in a lambda
            assert one.of(pod.id) == LIFE
    finally:
        second.end()


def test_a_listener_that_leaves_disturbs_nobody(subject: Subject, listener: Listener) -> None:
    Listener(subject).end()
    pod = subject.run()
    wait_for(lambda: STARTED in listener.of(pod.id), "the start to be told")
