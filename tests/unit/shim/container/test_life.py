import asyncio
import json
import os
from dataclasses import replace

import pytest

from shim.container.create import create_container
from shim.container.exec_sync import exec_sync
from shim.container.remove import remove_container
from shim.container.reopen_log import reopen_container_log
from shim.container.start import start_container
from shim.container.status import list_containers
from shim.container.stop import stop_container
from shim.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, WherryError
from shim.events import EventKind
from shim.gen.runtime.v1 import api_pb2
from shim.monitor.protocol import StartFailed
from shim.pod.remove import remove_pod_sandbox
from shim.pod.run import run_pod_sandbox
from shim.pod.stop import stop_pod_sandbox
from shim.rpc import encode
from shim.store.containers import State
from tests.unit.shim.fakes import IMAGE_ID, container_config, pod_config


@pytest.fixture
async def pod(world):
    node, trace = world
    pod_id = await run_pod_sandbox(node, pod_config(log_directory=f"{node.config.root}/logs"), "")
    trace.clear()
    return pod_id


def files_below(folder):
    return os.listdir(folder) if os.path.exists(folder) else []


async def started(node, pod, **fields):
    container_id = await create_container(node, pod, container_config(**fields))
    await start_container(node, container_id)
    return container_id


def shown(node, container_id):
    return encode.container_status(node.containers.get(container_id), node.images.record)


async def test_the_image_is_called_what_the_pod_calls_it(world, pod):
    node, _ = world
    container_id = await create_container(
        node, pod, container_config(image=api_pb2.ImageSpec(image=IMAGE_ID, user_specified_image="busybox:2"))
    )
    assert shown(node, container_id).image.image == node.images.record.repo_tags[0]
    node.images.record = replace(
        node.images.record, repo_tags=("docker.io/library/busybox:1", "docker.io/library/busybox:2", "other.io/x:2")
    )
    assert shown(node, container_id).image.image == "docker.io/library/busybox:2"


async def test_a_life(world, pod):
    node, trace = world
    container_id = await create_container(node, pod, container_config(log_path="main/0.log"))
    status = shown(node, container_id)
    assert status.state == api_pb2.CONTAINER_CREATED
    assert status.log_path == f"{node.config.root}/logs/main/0.log"
    assert status.image_id == IMAGE_ID
    assert status.image_ref == node.images.record.repo_digests[0]
    assert status.created_at > 0
    assert status.started_at == status.finished_at == 0
    assert status.stop_signal == api_pb2.SIGNAL_SIGTERM
    with open(f"{node.container_dir(container_id)}/config.json", "rb") as file:
        assert json.load(file)["linux"]["cgroupsPath"] == f"/wherry-unit-test/{pod}/{container_id}"
    await start_container(node, container_id)
    assert shown(node, container_id).state == api_pb2.CONTAINER_RUNNING
    await node.monitors.get(pod).exits(container_id, 3)
    status = shown(node, container_id)
    assert (status.state, status.exit_code, status.reason) == (api_pb2.CONTAINER_EXITED, 3, "Error")
    assert status.finished_at == 9_000
    await remove_container(node, container_id)
    assert trace == ["rootfs", "monitor.create", "monitor.start", "monitor.delete", "rootfs.remove"]
    assert os.listdir(f"{node.config.root}/containers") == []


@pytest.mark.parametrize(("code", "oom", "reason"), [(0, False, "Completed"), (1, False, "Error"), (137, True, "OOMKilled")])
async def test_reasons(world, pod, code, oom, reason):
    node, _ = world
    container_id = await started(node, pod)
    await node.monitors.get(pod).exits(container_id, code, oom=oom)
    assert shown(node, container_id).reason == reason


async def test_an_exit_that_comes_before_the_start_is_committed_is_kept(world, pod):
    node, trace = world
    container_id = await create_container(node, pod, container_config())
    trace.block.add("monitor.start")
    start = asyncio.create_task(start_container(node, container_id))
    await trace.reached.wait()
    await node.monitors.get(pod).exits(container_id, 0)
    trace.release.set()
    await start
    status = shown(node, container_id)
    assert (status.state, status.reason, status.started_at) == (api_pb2.CONTAINER_EXITED, "Completed", 5_000)


async def test_listeners_hear_of_the_start_before_the_end(world, pod):
    node, trace = world
    container_id = await create_container(node, pod, container_config())
    heard = node.events.listen()
    first = asyncio.ensure_future(anext(heard))
    await asyncio.sleep(0)
    trace.block.add("monitor.start")
    start = asyncio.create_task(start_container(node, container_id))
    await trace.reached.wait()
    await node.monitors.get(pod).exits(container_id, 0)
    assert not node.exit_event(container_id).is_set()
    trace.release.set()
    await start
    kinds = [(await first).kind, (await anext(heard)).kind]
    assert kinds == [EventKind.STARTED, EventKind.STOPPED]
    status = node.containers.get(container_id).status
    assert (status.pid, status.started_at, status.finished_at) == (100, 5_000, 9_000)
    assert node.starting == {}


async def test_the_end_of_a_failed_start_is_told_once(world, pod):
    node, trace = world
    container_id = await create_container(node, pod, container_config())
    heard = node.events.listen()
    first = asyncio.ensure_future(anext(heard))
    await asyncio.sleep(0)
    trace.block.add("monitor.start")
    trace.fail["monitor.start"] = StartFailed(127, "StartError", "not found")
    start = asyncio.create_task(start_container(node, container_id))
    await trace.reached.wait()
    await node.monitors.get(pod).exits(container_id, 127)
    trace.release.set()
    with pytest.raises(StartFailed):
        await start
    assert (await first).kind is EventKind.STOPPED
    await remove_container(node, container_id)
    assert (await anext(heard)).kind is EventKind.DELETED


async def test_a_command_that_does_not_exist(world, pod):
    node, trace = world
    container_id = await create_container(node, pod, container_config())
    trace.fail["monitor.start"] = StartFailed(127, "StartError", 'exec: "nope": executable file not found in $PATH')
    with pytest.raises(StartFailed):
        await start_container(node, container_id)
    status = shown(node, container_id)
    assert (status.state, status.exit_code, status.reason) == (api_pb2.CONTAINER_EXITED, 127, "StartError")
    assert "not found" in status.message
    await remove_container(node, container_id)


async def test_another_runtimes_binary_creates_at_start(world):
    node, trace = world
    pod = await run_pod_sandbox(node, pod_config(), "runc")
    container_id = await create_container(node, pod, container_config())
    assert "monitor.create" not in trace
    await start_container(node, container_id)
    assert node.monitors.get(pod).known[container_id].handler == "/usr/sbin/runc"
    assert node.containers.get(container_id).status.pid == 100


async def test_stop_of_what_was_never_made_does_not_wait(world):
    node, trace = world
    pod = await run_pod_sandbox(node, pod_config(), "runc")
    container_id = await create_container(node, pod, container_config())
    trace.clear()
    async with asyncio.timeout(0.5):
        await stop_container(node, container_id, 30)
    assert trace == []
    status = shown(node, container_id)
    assert (status.state, status.exit_code, status.started_at) == (api_pb2.CONTAINER_EXITED, 137, 0)
    with pytest.raises(FailedPrecondition, match="exited"):
        await start_container(node, container_id)


@pytest.mark.parametrize("step", ["rootfs", "monitor.create"])
async def test_a_failed_create_is_undone(world, pod, step):
    node, trace = world
    trace.fail[step] = WherryError("no luck")
    with pytest.raises(WherryError, match="no luck"):
        await create_container(node, pod, container_config())
    assert trace[-1] == "rootfs.remove"
    assert len(node.containers) == 0
    assert files_below(f"{node.config.root}/containers") == []


async def test_what_could_not_be_undone_is_undone_by_the_repetition(world, pod, monkeypatch):
    node, trace = world
    trace.fail["monitor.create"] = WherryError("no luck")

    async def full(_id):
        raise ResourceExhausted("no space")

    with monkeypatch.context() as patch:
        patch.setattr(node.containers, "remove", full)
        with pytest.raises(WherryError, match="no luck"):
            await create_container(node, pod, container_config())
    assert len(node.containers) == 1
    trace.fail.clear()
    container_id = await create_container(node, pod, container_config())
    assert [one.id for one in node.containers] == [container_id]


async def test_what_has_happened_is_shown_though_the_disk_is_full(world, pod, monkeypatch):
    node, _ = world
    container_id = await create_container(node, pod, container_config())

    async def full(_change):
        raise ResourceExhausted("no space")

    monkeypatch.setattr(node.database, "write", full)
    await start_container(node, container_id)
    assert shown(node, container_id).state == api_pb2.CONTAINER_RUNNING
    await node.monitors.get(pod).exits(container_id, 4)
    assert shown(node, container_id).exit_code == 4


async def test_a_cancelled_create_is_undone(world, pod):
    node, trace = world
    trace.block.add("monitor.create")
    call = asyncio.create_task(create_container(node, pod, container_config()))
    await trace.reached.wait()
    call.cancel()
    await asyncio.sleep(0)
    trace.release.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert trace[-2:] == ["monitor.delete", "rootfs.remove"]
    assert len(node.containers) == 0


async def test_repetitions(world, pod):
    node, trace = world
    ids = await asyncio.gather(*(create_container(node, pod, container_config()) for _ in range(3)))
    assert len(set(ids)) == 1
    assert await create_container(node, pod, container_config()) == ids[0]
    assert trace.count("monitor.create") == 1
    with pytest.raises(AlreadyExists):
        await create_container(node, pod, container_config(labels={"a": "b"}))
    await start_container(node, ids[0])
    with pytest.raises(AlreadyExists, match="running"):
        await create_container(node, pod, container_config())


async def test_a_pod_that_stops_meanwhile_gets_no_container(world, pod):
    node, trace = world
    trace.block.add("rootfs")
    call = asyncio.create_task(create_container(node, pod, container_config()))
    await trace.reached.wait()
    await stop_pod_sandbox(node, pod)
    trace.release.set()
    with pytest.raises(FailedPrecondition, match="was stopped"):
        await call
    assert len(node.containers) == 0
    with pytest.raises(FailedPrecondition, match="not running"):
        await create_container(node, pod, container_config())


async def test_stop_sends_the_signal_and_waits(world, pod):
    node, trace = world
    container_id = await started(node, pod, stop_signal=api_pb2.SIGNAL_SIGUSR1)
    await stop_container(node, container_id, 10)
    assert trace[-1] == "kill 10"
    assert shown(node, container_id).exit_code == 138
    await stop_container(node, container_id, 10)
    assert trace[-1] == "kill 10"


async def test_stop_kills_everything_after_the_grace(world, pod):
    node, trace = world
    container_id = await started(node, pod)
    node.monitors.get(pod).obeys = False
    await stop_container(node, container_id, 0.01)
    assert trace[-2:] == ["kill 15", "kill 9 all"]
    assert shown(node, container_id).exit_code == 137


async def test_a_second_stop_with_less_grace_kills_at_once(world, pod):
    node, _ = world
    container_id = await started(node, pod)
    node.monitors.get(pod).obeys = False
    patient = asyncio.create_task(stop_container(node, container_id, 600))
    await asyncio.sleep(0)
    await stop_container(node, container_id, 0)
    await patient


async def test_stop_and_remove_of_the_unknown_are_no_errors(world):
    node, _ = world
    await stop_container(node, "f" * 64, 0)
    await remove_container(node, "f" * 64)
    with pytest.raises(InvalidArgument):
        await stop_container(node, "", 0)


async def test_remove_kills_a_running_container(world, pod):
    node, trace = world
    container_id = await started(node, pod)
    await remove_container(node, container_id)
    assert trace[-3:] == ["kill 9 all", "monitor.delete", "rootfs.remove"]


async def test_remove_pod_takes_its_containers_along(world, pod):
    node, trace = world
    await started(node, pod)
    await started(node, pod, name="second")
    await remove_pod_sandbox(node, pod)
    assert len(node.containers) == len(node.pods) == 0
    assert trace.count("kill 9 all") == 2


async def test_start_only_once(world, pod):
    node, _ = world
    container_id = await started(node, pod)
    with pytest.raises(FailedPrecondition, match="running"):
        await start_container(node, container_id)
    with pytest.raises(NotFound):
        await start_container(node, "f" * 64)


async def test_filters(world, pod):
    node, _ = world
    running = await started(node, pod, labels={"app": "web"})
    created = await create_container(node, pod, container_config("second", labels={"app": "db"}))

    def found(**fields):
        return [one.id for one in list_containers(node, api_pb2.ContainerFilter(**fields))]

    assert found() == [running, created]
    assert found(id=running[:12]) == [running]
    assert found(id="f" * 64) == []
    assert found(pod_sandbox_id=pod[:12]) == [running, created]
    assert found(pod_sandbox_id="f" * 64) == []
    assert found(label_selector={"app": "db"}) == [created]
    assert found(state=api_pb2.ContainerStateValue(state=api_pb2.CONTAINER_CREATED)) == [created]
    assert found(state=api_pb2.ContainerStateValue(state=api_pb2.CONTAINER_RUNNING), label_selector={"app": "db"}) == []


async def test_exec_and_reopen_need_a_running_container(world, pod):
    node, trace = world
    container_id = await create_container(node, pod, container_config())
    for call in (exec_sync(node, container_id, ["true"], 0), reopen_container_log(node, container_id)):
        with pytest.raises(FailedPrecondition, match="created, not running"):
            await call
    await start_container(node, container_id)
    result = await exec_sync(node, container_id, ["ls", "/"], 5)
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"o" * 10, b"e")
    request = node.monitors.get(pod).exec_request
    assert (request.process, request.timeout_s) == ({"args": ["ls", "/"]}, 5)
    await reopen_container_log(node, container_id)
    assert trace[-1] == "reopen"
    with pytest.raises(InvalidArgument, match="cmd"):
        await exec_sync(node, container_id, [], 0)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda config: config.metadata.ClearField("name"), InvalidArgument),
        (lambda config: config.image.ClearField("image"), InvalidArgument),
        (lambda config: setattr(config.image, "image", "nowhere"), NotFound),
        (lambda config: setattr(config, "log_path", "../../x"), InvalidArgument),
        (lambda config: setattr(config, "stop_signal", 99), InvalidArgument),
    ],
)
async def test_bad_configurations_leave_nothing(world, pod, spoil, error):
    node, trace = world
    config = container_config()
    spoil(config)
    with pytest.raises(error):
        await create_container(node, pod, config)
    assert trace == []
    assert len(node.containers) == 0


async def test_what_the_store_holds_is_read_back(world, pod):
    node, _ = world
    container_id = await started(node, pod)
    before = node.containers.get(container_id)
    fresh = type(node.containers)(node.database)
    assert fresh.load() == []
    assert fresh.get(container_id) == before
    assert fresh.get(container_id).state is State.RUNNING
