"""Processes that do one job after the other: whose job may be followed by another, and when the process goes."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from shim.errors import DeadlineExceeded, WherryError
from shim.spawner import server
from shim.spawner.jobs import MAX_DESCRIPTORS
from tests.support.monitors import gone, spawner
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shim.spawner.client import SpawnerClient

KINDS = dict.fromkeys(("cni", "once"), "tests.unit.shim.spawner.fake_jobs:any_of")


@pytest.fixture
async def client() -> AsyncIterator[SpawnerClient]:
    async with spawner(KINDS) as (client, _process):
        yield client


async def pid_of(client: SpawnerClient, what: str = "echo", kind: str = "cni", **params: Any) -> int:
    return int((await client.job(kind, {"do": what, **params}))["pid"])


async def test_a_process_does_one_job_after_the_other(client: SpawnerClient) -> None:
    assert len({await pid_of(client, steps=1) for _ in range(5)}) == 1


async def test_progress_goes_to_the_job_that_makes_it(client: SpawnerClient) -> None:
    await pid_of(client)
    seen: list[dict[str, Any]] = []
    await client.job("cni", {"do": "echo", "steps": 2}, on_progress=seen.append)
    assert seen == [{"step": 0}, {"step": 1}]


async def test_kinds_that_are_not_listed_get_a_process_each(client: SpawnerClient) -> None:
    assert len({await pid_of(client, kind="once") for _ in range(3)}) == 3


async def test_jobs_at_once_have_processes_of_their_own_and_few_stay(client: SpawnerClient) -> None:
    pids = set(await asyncio.gather(*(pid_of(client) for _ in range(8))))
    assert len(pids) == 8
    wait_for(lambda: sum(not gone(pid) for pid in pids) == server.IDLE_WORKERS, "the superfluous processes to end")


async def test_a_job_that_fails_is_its_processs_last(client: SpawnerClient) -> None:
    first = await pid_of(client)
    with pytest.raises(WherryError):
        await client.job("cni", {"do": "fail", "how": "os"})
    assert gone(first)
    assert await pid_of(client) != first


@pytest.mark.parametrize(("what", "params"), [("leave_child", {}), ("leak", {"count": MAX_DESCRIPTORS})])
async def test_a_job_that_leaves_something_is_its_processs_last(
    client: SpawnerClient, what: str, params: dict[str, Any]
) -> None:
    first = await pid_of(client, what, **params)
    assert gone(first)
    assert await pid_of(client) != first


async def test_a_deadline_kills_a_process_that_has_served_before(client: SpawnerClient) -> None:
    first = await pid_of(client)
    with pytest.raises(DeadlineExceeded):
        await client.job("cni", {"do": "hang", "children": 0}, timeout=0.05)
    assert gone(first)
    assert await pid_of(client) != first


async def test_a_process_killed_while_it_waits_is_replaced(client: SpawnerClient) -> None:
    first = await pid_of(client)
    os.kill(first, 9)
    wait_for(lambda: gone(first), "the process to end")
    assert await pid_of(client) != first


async def test_descriptors_go_to_a_process_of_their_own(client: SpawnerClient) -> None:
    first = await pid_of(client)
    with open(os.devnull, "wb") as sink:
        assert (await client.job("cni", {"do": "echo"}, fds=[sink.fileno()]))["pid"] != first
    assert await pid_of(client) == first
