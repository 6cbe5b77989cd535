"""The spawner with jobs of the tests' own: results, errors, cancellation, deadlines, and what dies with whom."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from shim.errors import DeadlineExceeded, Internal, ResourceExhausted, Unavailable, Unimplemented, WherryError
from tests.support.monitors import gone, spawner
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shim.spawner.client import SpawnerClient
    from tests.support.monitors import SpawnerProcess

KINDS = {kind: f"tests.unit.shim.spawner.fake_jobs:{kind}" for kind in ("echo", "about", "fail", "hang", "leave_child")} | {
    "absent": "no.such.module:run"
}


@pytest.fixture
async def running() -> AsyncIterator[tuple[SpawnerClient, SpawnerProcess]]:
    async with spawner(KINDS) as pair:
        yield pair


@pytest.fixture
def client(running: tuple[SpawnerClient, SpawnerProcess]) -> SpawnerClient:
    return running[0]


async def test_result_progress_and_descriptors(client: SpawnerClient) -> None:
    seen: list[dict[str, Any]] = []
    reader, writer = os.pipe()
    try:
        result = await client.job("echo", {"steps": 3, "name": "ü"}, fds=[writer], on_progress=seen.append)
        assert os.read(reader, 100) == b"from the job"
    finally:
        os.close(writer)
        os.close(reader)
    assert result["params"] == {"steps": 3, "name": "ü"}
    assert result["group"] == result["pid"]
    assert seen == [{"step": 0}, {"step": 1}, {"step": 2}]


async def test_large_values_pass(client: SpawnerClient) -> None:
    result = await client.job("echo", {"blob": "y" * 300_000, "size": 1_000_000})
    assert len(result["params"]["blob"]) == 300_000
    assert len(result["size"]) == 1_000_000


async def test_many_jobs_side_by_side(client: SpawnerClient) -> None:
    results = await asyncio.gather(*(client.job("echo", {"number": number, "steps": 5}) for number in range(40)))
    assert [result["params"]["number"] for result in results] == list(range(40))
    assert len({result["pid"] for result in results}) == 40


async def test_a_job_has_only_what_it_was_given(client: SpawnerClient) -> None:
    about = await client.job("about", {})
    assert len(about["fds"]) <= 3 + 2  # its socket, and the directory it looks into
    assert about["threads"] == 1
    assert about["ignored"] == []
    forbidden = ("grpc", "google", "aiohttp", "asyncio", "sqlite3", "structlog")
    assert not [name for name in about["modules"] if name.partition(".")[0] in forbidden]


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        ("typed", ResourceExhausted, "disk: full"),
        ("os", ResourceExhausted, "no space left"),
        ("die", Internal, "status 137"),
        ("exit", Internal, "SystemExit: 7"),
        ("unserialisable", Internal, "not a JSON value"),
        ("boom", Internal, "ZeroDivisionError: boom"),
    ],
)
async def test_failures_are_values(client: SpawnerClient, how: str, kind: type[WherryError], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        await client.job("fail", {"how": how})
    assert type(caught.value) is kind
    assert (await client.job("echo", {}))["params"] == {}


async def test_unknown_and_unimportable_kinds(client: SpawnerClient) -> None:
    with pytest.raises(Unimplemented, match="'nonsense'"):
        await client.job("nonsense", {})
    with pytest.raises(Internal, match="ModuleNotFoundError"):
        await client.job("absent", {})


async def hanging(client: SpawnerClient, **settings: Any) -> tuple[asyncio.Task[dict[str, Any]], list[int]]:
    told: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(client.job("hang", {}, on_progress=told.set_result, **settings))
    return task, (await asyncio.wait_for(told, 10))["pids"]


async def test_cancelling_kills_the_whole_tree_first(client: SpawnerClient) -> None:
    task, pids = await hanging(client)
    assert len(pids) == 4
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(map(gone, pids))
    assert not {str(pid) for pid in pids} & set(os.listdir("/proc")), "reaped, too"


async def test_a_second_cancellation_does_not_shorten_the_wait(client: SpawnerClient) -> None:
    task, pids = await hanging(client)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(map(gone, pids))


async def test_deadline(client: SpawnerClient) -> None:
    task, pids = await hanging(client, timeout=1.5)
    with pytest.raises(DeadlineExceeded, match=r"hang did not end within 1\.5 s"):
        await task
    assert all(map(gone, pids))


async def test_a_forgotten_child_does_not_stay(client: SpawnerClient) -> None:
    assert gone((await client.job("leave_child", {}))["child"])


async def test_the_spawners_death_is_seen_and_takes_its_jobs_along(running: tuple[SpawnerClient, SpawnerProcess]) -> None:
    client, process = running
    task, pids = await hanging(client)
    process.kill()
    await asyncio.wait_for(asyncio.shield(client.closed), 5)
    with pytest.raises(Unavailable):
        await task
    wait_for(lambda: gone(pids[0]), "the job to die with the spawner")
    for pid in pids[1:]:  # orphans of a killed spawner: nobody is left to do it
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    with pytest.raises(Unavailable):
        await client.job("echo", {})


async def test_it_ends_with_wherryd_and_kills_its_jobs(running: tuple[SpawnerClient, SpawnerProcess]) -> None:
    client, process = running
    task, pids = await hanging(client)
    await client.close()
    with pytest.raises(Unavailable):
        await task
    assert process.child.wait(10) == 0
    assert all(map(gone, pids))


async def test_garbage_ends_the_spawner_not_the_machine(running: tuple[SpawnerClient, SpawnerProcess]) -> None:
    client, process = running
    process.sock.send(b"garbage")
    await asyncio.wait_for(asyncio.shield(client.closed), 5)
    assert process.child.wait(10) == 0
