"""Logs of real containers: nothing is lost, whatever happens to the file or to wherryd."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from shim.monitor.client import MonitorClient
from shim.monitor.protocol import LogLost
from tests.support.monitors import PodHarness, exit_of, running_pod
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.system


@pytest.fixture
async def pod(short_dir: Path) -> AsyncIterator[PodHarness]:
    async with running_pod(short_dir) as harness:
        yield harness


def texts(*paths: str) -> list[str]:
    found = []
    for path in paths:
        with open(path, encoding="utf-8") as log:
            found += [line.rstrip("\n").split(" ", 3)[3] for line in log]
    return found


def line_ends(path: str) -> int:
    with open(path, "rb") as log:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: log.read(1 << 20), b""))


async def run(*command: str) -> int:
    """Run a program of the host and give its exit status."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    return await process.wait()


async def test_100k_lines_with_rotations_in_the_middle(pod: PodHarness, short_dir: Path) -> None:
    path = short_dir / "rotated"
    request = pod.request("seq", "1", "100000", log_path=str(path))
    await pod.monitor.create(request)
    files: list[str] = []

    async def rotate() -> None:
        """As kubelet: rename, then ReopenContainerLog."""
        old = f"{path}.{len(files)}"
        path.rename(old)
        files.append(old)
        await pod.monitor.reopen_log(request.container_id)

    await pod.monitor.start(request.container_id)
    ended = asyncio.create_task(pod.exited(request.container_id))
    while not ended.done() and len(files) < 50:
        await rotate()
    assert (await asyncio.wait_for(ended, 30)).exit_code == 0
    assert texts(*files, str(path)) == [str(number) for number in range(1, 100001)]


async def test_the_log_flows_while_nobody_is_connected(pod: PodHarness) -> None:
    request = await pod.run("sh", "-c", "seq 1 50000; sleep 0.3; seq 50001 100000")
    await pod.monitor.close()
    exits = pod.state_dir / "exits" / f"{request.container_id}.json"
    await asyncio.to_thread(wait_for, exits.exists, "the exit record")
    pod.monitor = await MonitorClient.connect(pod.socket)
    assert texts(request.log_path) == [str(number) for number in range(1, 100001)]


async def test_a_client_that_does_not_read_stops_nothing(pod: PodHarness) -> None:
    """It does not take its events: the monitor must neither wait for it nor keep messages for ever."""
    deaf = await MonitorClient.connect(pod.socket)
    deaf._link._loop.remove_reader(deaf._link._sock.fileno())
    for _ in range(30):
        request = await pod.run("true")
        assert (await asyncio.wait_for(pod.exited(request.container_id), 10)).exit_code == 0
        await pod.monitor.delete(request.container_id)
    await deaf.close()


async def test_a_full_disk_does_not_block_the_container(pod: PodHarness, short_dir: Path) -> None:
    small = short_dir / "small"
    small.mkdir()
    await run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small))
    try:
        request = pod.request("seq", "1", "100000", log_path=str(small / "log"))
        await pod.monitor.create(request)
        await pod.monitor.start(request.container_id)
        seen = []
        async with asyncio.timeout(20):
            async for event in pod.monitor.events:
                seen.append(event)
                if not isinstance(event, LogLost):
                    break
        assert [type(event).__name__ for event in seen] == ["LogLost", "Exited"]
        (listed,) = await pod.monitor.containers()
        assert listed.log_lost_bytes > 1_000_000
        kept = texts(request.log_path)
        assert kept == [str(number) for number in range(1, len(kept) + 1)], "whole lines, from the first"
        assert (small / "log").read_bytes().endswith(b"\n")
        await pod.monitor.delete(request.container_id)
    finally:
        await run("umount", str(small))
    assert "losing lines" in (pod.state_dir / "monitor.log").read_text()


async def test_a_leaked_grandchild_does_not_hold_up_the_exit(pod: PodHarness) -> None:
    """With the node's PID namespace nobody kills what the container leaves behind but we; and its pipe stays open till then."""

    def host_pid(config: dict[str, dict[str, list[dict[str, str]]]]) -> None:
        config["linux"]["namespaces"] = [one for one in config["linux"]["namespaces"] if one["type"] != "pid"]
        config["mounts"] = [{"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]}]  # type: ignore[assignment] - JSON

    request = await pod.run("sh", "-c", "setsid sleep 9876 & echo done; exit 6", change=host_pid)
    assert (await asyncio.wait_for(pod.exited(request.container_id), 10)).exit_code == 6
    assert texts(request.log_path) == ["done"]
    assert await run("pgrep", "-f", "sleep 9876") == 1


async def test_throughput(pod: PodHarness) -> None:
    """71-byte lines, as the benchmark has them; a slow machine may have a fifth of the target."""
    total = 300_000_000
    started = asyncio.get_running_loop().time()
    request = await pod.run("sh", "-c", f"yes {'x' * 70} | head -c {total // 71 * 71}")
    assert (await asyncio.wait_for(pod.exited(request.container_id), 60)).exit_code == 0
    seconds = asyncio.get_running_loop().time() - started
    assert line_ends(request.log_path) == total // 71
    os.unlink(request.log_path)
    assert total / seconds / 1e6 > 30


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_the_monitor_is_not_ended_by_signals_meant_for_others(pod: PodHarness, number: int) -> None:
    os.kill(pod.pid, number)
    request = await pod.run("true")
    assert (await exit_of(pod.monitor, request.container_id)).exit_code == 0
