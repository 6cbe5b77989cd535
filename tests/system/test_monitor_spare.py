"""The spare monitor that the nursery keeps for the next pod: it is taken, replaced, and goes with those it belongs to."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.monitors import PodHarness, gone, spawner
from tests.support.snapshot import parent_of
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from tests.support.monitors import SpawnerProcess

pytestmark = pytest.mark.system


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def children(pid: int, name: str) -> list[int]:
    listed = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [one for one in listed if comm(one) == name and parent_of(one) == pid]


def keepers(process: SpawnerProcess) -> set[int]:
    (nursery,) = children(process.child.pid, "wherry-nursery")
    return set(children(nursery, "wherry-keeper"))


async def spare(process: SpawnerProcess, *pods: PodHarness) -> int:
    """Wait for a keeper with a monitor that is no pod's."""
    taken = {pod.pid for pod in pods}
    await asyncio.to_thread(wait_for, lambda: len(keepers(process) - taken) == 1, "a spare keeper")
    (found,) = keepers(process) - taken
    await asyncio.to_thread(wait_for, lambda: children(found, "wherry-monitor"), "its monitor")
    return found


async def test_the_next_pod_takes_the_spare(tmp_path: Path) -> None:
    async with spawner(patience=(0.1, 0.2)) as (client, process):
        first, second, third = (PodHarness(client, tmp_path / name, "") for name in ("1", "2", "3"))
        await first.start()
        waiting = await spare(process, first)
        monitors = children(waiting, "wherry-monitor")
        await second.start()
        assert second.pid == second.monitor.pid == waiting
        assert second.monitor.pod_id == second.pod_id
        assert second.working() == monitors
        request = await second.run("sh", "-c", "echo here; sleep 1000")
        await asyncio.to_thread(wait_for, lambda: not second.working(), "rest")  # its keeper knows the pod, too
        (listed,) = await second.monitor.containers()
        assert listed.id == request.container_id
        dead = await spare(process, first, second)
        os.kill(dead, signal.SIGKILL)
        await asyncio.to_thread(wait_for, lambda: gone(dead), "the spare's end")
        await third.start()
        assert third.monitor.pid != dead
        for pod in (first, second, third):
            await pod.stop()


async def test_a_spare_ends_with_the_spawner(tmp_path: Path) -> None:
    async with spawner() as (client, process):
        pod = PodHarness(client, tmp_path, "")
        await pod.start()
        waiting = await spare(process, pod)
        both = (waiting, *children(waiting, "wherry-monitor"))
        process.kill()
        await asyncio.to_thread(wait_for, lambda: all(map(gone, both)), "the spare's end")
        assert await pod.monitor.containers() == []
        await pod.stop()


async def test_a_spare_does_not_wait_for_ever(tmp_path: Path) -> None:
    async with spawner() as (client, process):
        pod = PodHarness(client, tmp_path, "")
        await pod.start()
        waiting = await spare(process, pod)
        await asyncio.to_thread(wait_for, lambda: gone(waiting), "the spare's end", seconds=10)
        await pod.stop()
        assert not keepers(process) - {pod.pid}
