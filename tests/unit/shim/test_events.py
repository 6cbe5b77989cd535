"""Events: in order, once, with what was true at that moment; slow listeners are sent away."""

from __future__ import annotations

import asyncio

import pytest

from shim.container.create import create_container
from shim.container.remove import remove_container
from shim.container.start import start_container
from shim.errors import ResourceExhausted, Unavailable
from shim.events import QUEUE_LIMIT, ContainerEvent, EventBus, EventKind
from shim.gen.runtime.v1 import api_pb2
from shim.pod.remove import remove_pod_sandbox
from shim.pod.run import run_pod_sandbox
from shim.pod.stop import stop_pod_sandbox
from shim.rpc.event_service import EventService
from shim.rpc.runtime_service import RuntimeService
from shim.rpc.streams import chunks
from tests.unit.shim.fakes import container_config, pod_config


def event(number):
    return ContainerEvent(kind=EventKind.STARTED, container_id=str(number), pod_id="p", at=number, pod=None, containers=())


class Listener:
    """A client of GetContainerEvents."""

    def __init__(self, node):
        service = EventService()
        service._node = node
        self.seen = []
        self._task = asyncio.create_task(self._listen(service))

    async def _listen(self, service):
        async for response in service.get_container_events(api_pb2.GetEventsRequest()):
            self.seen.append(response)

    async def end(self, node):
        await asyncio.sleep(0)
        node.events.close()
        with pytest.raises(Unavailable):
            await self._task
        return self.seen


async def test_a_life_is_told_in_order_with_its_status(world):
    node, _trace = world
    listener = Listener(node)
    await asyncio.sleep(0)
    pod_id = await run_pod_sandbox(node, pod_config(), "")
    container_id = await create_container(node, pod_id, container_config())
    await start_container(node, container_id)
    await node.monitors.get(pod_id).exits(container_id, 3)
    await node.monitors.get(pod_id).exits(container_id, 3)
    await remove_container(node, container_id)
    await remove_pod_sandbox(node, pod_id)
    seen = await listener.end(node)
    told = [
        (
            one.container_id,
            one.container_event_type,
            one.pod_sandbox_status.state,
            [each.state for each in one.containers_statuses],
        )
        for one in seen
    ]
    ready, gone = api_pb2.SANDBOX_READY, api_pb2.SANDBOX_NOTREADY
    created, started = api_pb2.CONTAINER_CREATED_EVENT, api_pb2.CONTAINER_STARTED_EVENT
    stopped, deleted = api_pb2.CONTAINER_STOPPED_EVENT, api_pb2.CONTAINER_DELETED_EVENT
    assert told == [
        (pod_id, created, ready, []),
        (pod_id, started, ready, []),
        (container_id, created, ready, [api_pb2.CONTAINER_CREATED]),
        (container_id, started, ready, [api_pb2.CONTAINER_RUNNING]),
        (container_id, stopped, ready, [api_pb2.CONTAINER_EXITED]),
        (container_id, deleted, ready, []),
        (pod_id, stopped, gone, []),
        (pod_id, deleted, gone, []),
    ]
    assert all(one.pod_sandbox_status.metadata.uid == "u1" and one.pod_sandbox_status.id == pod_id for one in seen)
    assert [one.created_at for one in seen] == sorted(one.created_at for one in seen)


async def test_a_stop_that_fails_first_is_told_once(world):
    node, trace = world
    pod_id = await run_pod_sandbox(node, pod_config(), "")
    listener = Listener(node)
    await asyncio.sleep(0)
    trace.fail["teardown"] = OSError("busy")
    with pytest.raises(OSError, match="busy"):
        await stop_pod_sandbox(node, pod_id)
    trace.fail.clear()
    await stop_pod_sandbox(node, pod_id)
    seen = await listener.end(node)
    assert [one.container_event_type for one in seen] == [api_pb2.CONTAINER_STOPPED_EVENT]


async def test_a_slow_listener_is_sent_away_and_others_are_not(world):
    node, _trace = world
    service = EventService()
    service._node = node
    slow, quick = service.get_container_events(None), EventBus.listen(node.events)
    first = asyncio.create_task(anext(slow))
    heard = asyncio.create_task(anext(quick))
    await asyncio.sleep(0)
    node.events.publish(event(0))
    assert (await first).container_id == "0"
    assert (await heard).at == 0
    for number in range(1, QUEUE_LIMIT + 2):
        node.events.publish(event(number))
        assert (await anext(quick)).at == number
    for number in range(1, QUEUE_LIMIT + 1):
        assert (await anext(slow)).container_id == str(number)
    with pytest.raises(ResourceExhausted, match="listen again"):
        await anext(slow)
    await quick.aclose()
    assert not node.events.heard


async def test_nobody_is_told_after_the_end():
    bus = EventBus()
    bus.close()
    assert [one async for one in bus.listen()] == []
    bus.publish(event(1))


def test_streams_are_cut_by_size():
    items = [api_pb2.Container(id="x" * 100) for _ in range(10)]
    assert [len(part) for part in chunks(items, 300)] == [3, 3, 3, 1]
    assert list(chunks([])) == []
    assert [len(part) for part in chunks(items)] == [10]


async def test_what_recovery_found_is_told_to_the_first_who_listens():
    bus = EventBus()
    bus.recovering = True
    assert bus.heard
    for number in range(QUEUE_LIMIT + 1):
        bus.publish(event(number))
    bus.recovered()
    assert not bus.heard
    bus.publish(event(-1))
    first, second = bus.listen(), bus.listen()
    assert [int((await anext(first)).container_id) for _ in range(QUEUE_LIMIT)] == list(range(QUEUE_LIMIT))
    waiting = [asyncio.ensure_future(anext(one)) for one in (first, second)]
    await asyncio.sleep(0)
    bus.publish(event(5))
    assert [one.container_id for one in await asyncio.gather(*waiting)] == ["5", "5"]


async def test_what_recovery_found_is_no_news_for_ever(monkeypatch):
    monkeypatch.setattr("shim.events.KEPT_SECONDS", 0.0)
    bus = EventBus()
    bus.recovering = True
    bus.publish(event(1))
    bus.recovered()
    listening = bus.listen()
    waiting = asyncio.ensure_future(anext(listening))
    await asyncio.sleep(0)
    bus.publish(event(2))
    assert (await waiting).container_id == "2"


async def test_the_newest_container_comes_first(world):
    """Kubelet with evented PLEG takes the first of a name for the current one, and sorts the events' but not the status'."""
    node, _trace = world
    listener = Listener(node)
    await asyncio.sleep(0)
    pod_id = await run_pod_sandbox(node, pod_config(), "")
    made = [await create_container(node, pod_id, container_config(f"c{number}")) for number in range(3)]
    service = RuntimeService(node)
    answer = await service.pod_sandbox_status(api_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod_id))
    assert [one.id for one in answer.containers_statuses] == made[::-1]
    assert [one.id for one in (await listener.end(node))[-1].containers_statuses] == made[::-1]
