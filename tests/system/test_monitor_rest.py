"""Monitors that go to rest: what a keeper sees to alone, what wakes a monitor, and that nothing is lost between them."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shim.monitor.client import MonitorClient
from shim.monitor.protocol import AttachRequest, ExecRequest
from tests.support.monitors import PodHarness, gone, spawner
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shim.monitor.protocol import ContainerCreate

pytestmark = pytest.mark.system

PATIENCE = 0.05


@pytest.fixture
async def pod(short_dir: Path) -> AsyncIterator[PodHarness]:
    async with spawner(patience=(PATIENCE, PATIENCE)) as (client, _process):
        harness = PodHarness(client, short_dir, "")
        await harness.start()
        await harness.setup()
        yield harness
        await harness.stop()


async def at_rest(pod: PodHarness) -> None:
    await asyncio.to_thread(wait_for, lambda: not pod.working(), "the monitor to go to rest")


async def echo(pod: PodHarness, request: ContainerCreate) -> bytes:
    order = ExecRequest(container_id=request.container_id, process={"args": ["echo", "here"]})
    return (await pod.monitor.exec_sync(order)).stdout


def lines(request: ContainerCreate) -> list[str]:
    return [line.partition(" stdout F ")[2] for line in Path(request.log_path).read_text(encoding="utf-8").splitlines()]


async def test_a_keeper_holds_little(pod: PodHarness) -> None:
    await pod.run("sleep", "1000")
    await at_rest(pod)
    rollup = Path(f"/proc/{pod.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in rollup if line.endswith("kB")}
    assert sizes["Private_Dirty"] < 1800
    assert len(pod.open_fds()) < 20


async def test_a_client_wakes_it_again_and_again(pod: PodHarness) -> None:
    request = await pod.run("sleep", "1000")
    for _ in range(3):
        await at_rest(pod)
        assert await echo(pod, request) == b"here\n"
    await at_rest(pod)
    other = await MonitorClient.connect(pod.socket)
    assert [(listed.id, listed.status) for listed in await other.containers()] == [(request.container_id, "running")]
    await other.close()
    assert pod.monitor.pid == other.pid == pod.pid


@pytest.mark.parametrize("status", [0, 7])
async def test_an_end_while_it_rests(pod: PodHarness, status: int) -> None:
    request = await pod.run("sh", "-c", f"until [ -e /go ]; do sleep 0.05; done; echo last; exit {status}")
    await at_rest(pod)
    go = pod.rootfs / "go"
    go.touch()
    event = await asyncio.wait_for(pod.exited(request.container_id), 10)
    go.unlink()
    assert (event.exit_code, lines(request)) == (status, ["last"])
    (listed,) = await pod.monitor.containers()
    assert listed.exit is not None
    assert (listed.status, listed.exit.exit_code) == ("stopped", status)
    await at_rest(pod)  # the record of the end goes with it
    (listed,) = await pod.monitor.containers()
    assert listed.exit is not None
    assert listed.exit.exit_code == status


async def test_a_signal_while_it_rests(pod: PodHarness) -> None:
    request = await pod.run("sleep", "1000")
    (listed,) = await pod.monitor.containers()
    await at_rest(pod)
    os.kill(listed.pid, signal.SIGKILL)
    event = await asyncio.wait_for(pod.exited(request.container_id), 10)
    assert (event.exit_code, event.signal) == (137, 9)


async def test_the_keeper_writes_the_log(pod: PodHarness) -> None:
    script = "i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.05; done; printf unfinished; : > /said; sleep 1000"
    request = await pod.run("sh", "-c", script)
    for _ in range(5):
        await at_rest(pod)
        await pod.monitor.containers()
    await asyncio.to_thread(wait_for, (pod.rootfs / "said").exists, "the last words")
    await at_rest(pod)
    await pod.monitor.kill(request.container_id, 9, all_processes=False)
    await asyncio.wait_for(pod.exited(request.container_id), 10)
    text = Path(request.log_path).read_text(encoding="utf-8").splitlines()
    assert lines(request)[:60] == [f"line {number}" for number in range(60)]
    assert text[60].endswith(" stdout P unfinished")


async def test_a_rotated_log(pod: PodHarness) -> None:
    request = await pod.run("sh", "-c", "while :; do echo x; sleep 0.05; done")
    await at_rest(pod)
    os.rename(request.log_path, f"{request.log_path}.1")
    await pod.monitor.reopen_log(request.container_id)
    await at_rest(pod)
    before = len(lines(request))
    await asyncio.to_thread(wait_for, lambda: len(lines(request)) > before + 3, "lines in the new file")


async def test_input_and_its_end_after_a_rest(pod: PodHarness) -> None:
    request = await pod.run("cat", stdin=True, stdin_once=True)
    await at_rest(pod)
    reader, writer = os.pipe()
    await pod.monitor.attach(AttachRequest(container_id=request.container_id, stdin=True), [reader])
    os.close(reader)
    os.write(writer, b"hello\n")
    os.close(writer)
    event = await asyncio.wait_for(pod.exited(request.container_id), 10)
    assert (event.exit_code, lines(request)) == (0, ["hello"])


async def test_a_dead_keeper_takes_its_monitor_along(pod: PodHarness) -> None:
    request = await pod.run("sleep", "1000")
    await pod.monitor.containers()
    await asyncio.to_thread(wait_for, lambda: not pod.working(), "rest")
    await pod.monitor.containers()
    working = pod.working()
    os.kill(pod.pid, signal.SIGKILL)
    await asyncio.wait_for(asyncio.shield(pod.monitor.closed), 5)
    await asyncio.to_thread(wait_for, lambda: all(map(gone, working)), "the monitor's end")
    await pod.start()
    (listed,) = await pod.monitor.containers()
    assert (listed.id, listed.status) == (request.container_id, "running")
    await at_rest(pod)  # also with a container that is no child of it
    os.kill(listed.pid, signal.SIGKILL)
    assert (await asyncio.wait_for(pod.exited(request.container_id), 10)).exit_code == 255


async def test_a_dead_monitor_takes_its_keeper_along(pod: PodHarness) -> None:
    await pod.run("sleep", "1000")
    await asyncio.to_thread(wait_for, lambda: not pod.working(), "rest")
    stream = ExecRequest(container_id=(await pod.monitor.containers())[0].id, process={"args": ["sleep", "1000"]})
    running = asyncio.ensure_future(pod.monitor.exec_sync(stream))
    await asyncio.to_thread(wait_for, pod.working, "the monitor to wake")
    os.kill(pod.working()[0], signal.SIGKILL)
    await asyncio.wait_for(asyncio.shield(pod.monitor.closed), 5)
    await asyncio.to_thread(wait_for, lambda: gone(pod.pid), "the keeper's end")
    with pytest.raises(Exception, match="monitor"):
        await running
    await pod.start()
