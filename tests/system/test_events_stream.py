"""GetContainerEvents: what connected clients hear of real containers."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    from tests.support.cri import Cri, PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

CREATED, STARTED = api_pb2.CONTAINER_CREATED_EVENT, api_pb2.CONTAINER_STARTED_EVENT
STOPPED, DELETED = api_pb2.CONTAINER_STOPPED_EVENT, api_pb2.CONTAINER_DELETED_EVENT


class Listener:
    """A connected client that notes what it hears."""

    def __init__(self, cri: Cri) -> None:
        self.seen: list[api_pb2.ContainerEventResponse] = []
        self.code: grpc.StatusCode | None = None
        self._call: Any = cri.runtime.GetContainerEvents(api_pb2.GetEventsRequest())
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call.initial_metadata()  # from now on nothing is missed
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._call.cancel()
        self._thread.join(10)

    def _listen(self) -> None:
        try:
            self.seen.extend(self._call)
        except grpc.RpcError as error:
            self.code = error.code()

    def of(self, item: str) -> list[int]:
        """Give the kinds of events told of a pod or a container."""
        return [event.container_event_type for event in self.seen if event.container_id == item]

    def wait_end(self) -> grpc.StatusCode | None:
        """Wait until the stream has ended and give the code."""
        self._thread.join(10)
        assert not self._thread.is_alive()
        return self.code


def test_a_life_in_order(wherryd: Wherryd, pods: PodMaker) -> None:
    with Listener(wherryd.cri) as listener:
        config = pods.pod()
        pod = wherryd.cri.run_pod(config)
        container = wherryd.cri.create(pod, pods.container("busybox", ["sh", "-c", "exit 3"]), config)
        wherryd.cri.start(container)
        wherryd.cri.wait_exit(container)
        wherryd.cri.remove(container)
        wherryd.cri.remove_pod(pod)
        wait_for(lambda: DELETED in listener.of(pod), "the pod's end to be told")
    assert listener.of(container) == [CREATED, STARTED, STOPPED, DELETED]
    assert listener.of(pod) == [CREATED, STARTED, STOPPED, DELETED]
    by_kind = {event.container_event_type: event for event in listener.seen if event.container_id == container}
    assert by_kind[CREATED].containers_statuses[0].state == api_pb2.CONTAINER_CREATED
    assert by_kind[STARTED].containers_statuses[0].started_at > 0
    assert (by_kind[STOPPED].containers_statuses[0].exit_code, by_kind[STOPPED].containers_statuses[0].reason) == (3, "Error")
    assert list(by_kind[DELETED].containers_statuses) == []
    for event in listener.seen:
        assert event.pod_sandbox_status.id == pod
        assert event.pod_sandbox_status.metadata.uid == config.metadata.uid
    assert listener.seen[0].pod_sandbox_status.network.ip
    assert listener.seen[-1].pod_sandbox_status.state == api_pb2.SANDBOX_NOTREADY


def test_many_at_once_are_heard_once_each_by_all(wherryd: Wherryd, pods: PodMaker) -> None:
    def live(_number: int) -> tuple[str, str]:
        config = pods.pod()
        pod = wherryd.cri.run_pod(config)
        container = wherryd.cri.create(pod, pods.container("busybox", ["true"]), config)
        wherryd.cri.start(container)
        wherryd.cri.remove_pod(pod)
        return pod, container

    with Listener(wherryd.cri) as first, Listener(wherryd.cri) as second:
        with ThreadPoolExecutor(6) as workers:
            ids = [item for pair in workers.map(live, range(12)) for item in pair]
        for listener in (first, second):
            wait_for(lambda heard=listener: len(heard.seen) >= 4 * len(ids), "all events to arrive")  # type: ignore[misc]  # mypy: no default in a lambda
    for listener in (first, second):
        told = Counter((event.container_id, event.container_event_type) for event in listener.seen)
        assert set(told.values()) == {1}
        for item in ids:
            assert listener.of(item) == [CREATED, STARTED, STOPPED, DELETED], item


def test_a_failed_start_is_told_as_an_end(wherryd: Wherryd, pods: PodMaker) -> None:
    with Listener(wherryd.cri) as listener:
        config = pods.pod()
        pod = wherryd.cri.run_pod(config)
        container = wherryd.cri.create(pod, pods.container("busybox", ["/absent"]), config)
        with pytest.raises(grpc.RpcError):
            wherryd.cri.start(container)
        wherryd.cri.remove_pod(pod)
        wait_for(lambda: DELETED in listener.of(pod), "the pod's end to be told")
    assert listener.of(container) == [CREATED, STOPPED, DELETED]


def test_listeners_do_not_hold_up_the_end_of_the_daemon(wherryd: Wherryd) -> None:
    with Listener(wherryd.cri) as listener:
        wherryd.process.stop()
        assert listener.wait_end() is grpc.StatusCode.UNAVAILABLE
    wherryd.disconnect()
    wherryd.start()


def test_what_ended_without_a_daemon_is_told_by_the_next(wherryd: Wherryd, pods: PodMaker) -> None:
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, pods.container("busybox", ["sleep", "1000"]), config)
    wherryd.cri.start(container)
    pid = int(wherryd.cri.info(container)["pid"])
    wherryd.kill()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "the container to end")
    wherryd.start()
    with Listener(wherryd.cri) as listener:
        wait_for(lambda: listener.of(container), "its end to be told")
    with Listener(wherryd.cri) as other:
        wherryd.cri.remove_pod(pod)
        wait_for(lambda: DELETED in other.of(pod), "the pod's end to be told")
    assert listener.of(container) == [STOPPED]
    assert listener.seen[0].containers_statuses[0].exit_code == 137
    assert other.of(container) == [DELETED]


def test_ends_before_during_and_after_a_crash_are_told_once(wherryd: Wherryd, pods: PodMaker) -> None:
    def begin(_number: int) -> tuple[str, str, int]:
        config = pods.pod()
        pod = wherryd.cri.run_pod(config)
        container = wherryd.cri.create(pod, pods.container("busybox", ["sleep", "1000"]), config)
        wherryd.cri.start(container)
        return pod, container, int(wherryd.cri.info(container)["pid"])

    def end(some: list[tuple[str, str, int]]) -> None:
        for _pod, _container, pid in some:
            os.kill(pid, signal.SIGKILL)

    with ThreadPoolExecutor(6) as workers:
        made = list(workers.map(begin, range(12)))
    with Listener(wherryd.cri) as before:
        end(made[:4])
        wait_for(lambda: before.seen, "the first end to be told")
        wherryd.kill()
        end(made[4:8])
        wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for _, _, pid in made[:8]), "the containers to end")
        wherryd.start()
        with Listener(wherryd.cri) as after:
            end(made[8:])
            wait_for(lambda: len(before.seen) + len(after.seen) >= len(made), "all ends to be told")
    told = Counter((event.container_id, event.container_event_type) for event in (*before.seen, *after.seen))
    assert told == Counter({(container, STOPPED): 1 for _pod, container, _pid in made})
