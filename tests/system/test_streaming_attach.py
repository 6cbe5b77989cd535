"""Attach, in real containers: several clients, input once, terminals, slow and lost clients, a gigabyte."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.daemon import BUSYBOX
from tests.support.streaming import attach_url, command, count, memory, pour, run_container, status_of
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from shim.streaming.dial import RemoteCommand
    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

GIGABYTE = 1_000_000_000
GROWTH = 24 * 1024 * 1024


async def until(opened: RemoteCommand, text: bytes, name: str = "stdout") -> bytes:
    """Read until `text` has come."""
    seen = b""
    async with asyncio.timeout(10):
        while text not in seen:
            data = await opened[name].read()
            assert data, f"the stream ended after {seen!r}"
            seen += data
    return seen


async def test_several_clients_see_and_say_the_same(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container = run_container(wherryd, pods, "cat", stdin=True)
    everything = ("stdin", "stdout", "stderr")
    async with (
        command(attach_url(wherryd, container, stdin=True), *everything) as one,
        command(attach_url(wherryd, container, stdin=True), *everything) as two,
        command(attach_url(wherryd, container), "stdout", "stderr") as watcher,
    ):
        await one["stdin"].write(b"from one\n")
        for opened in (one, two, watcher):
            await until(opened, b"from one\n")
        await two["stdin"].write(b"from two\n")
        for opened in (one, two, watcher):
            await until(opened, b"from two\n")
    status = wherryd.cri.status(container)
    assert status.state == api_pb2.CONTAINER_RUNNING
    with open(status.log_path, encoding="utf-8") as log:
        assert [line.split(" ", 3)[3] for line in log] == ["from one\n", "from two\n"]


async def test_the_end_of_the_container_ends_the_attach(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container = run_container(wherryd, pods, "sh", "-c", "read line; echo out $line; echo err >&2; exit 3", stdin=True)
    async with command(attach_url(wherryd, container, stdin=True), "stdin", "stdout", "stderr") as opened:
        await opened["stdin"].write(b"x\n")
        assert await opened["stdout"].read_all(100) == b"out x\n"
        assert await opened["stderr"].read_all(100) == b"err\n"
        assert (await status_of(opened))["status"] == "Success"
    assert wherryd.cri.wait_exit(container).exit_code == 3


async def test_input_once_ends_with_its_first_client(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container = run_container(wherryd, pods, "sh", "-c", "cat; echo over", stdin=True, stdin_once=True)
    async with command(attach_url(wherryd, container, stdin=True), "stdin", "stdout", "stderr") as opened:
        await opened["stdin"].write(b"words\n")
        opened["stdin"].finish()
        assert await opened["stdout"].read_all(100) == b"words\nover\n"
    assert wherryd.cri.wait_exit(container).exit_code == 0


async def test_input_stays_open_after_a_client_has_said_all(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container = run_container(wherryd, pods, "cat", stdin=True)
    for word in (b"first\n", b"second\n"):
        async with command(attach_url(wherryd, container, stdin=True), "stdin", "stdout", "stderr") as opened:
            await opened["stdin"].write(word)
            opened["stdin"].finish()
            assert await opened["stdout"].read_all(100) == word
            assert (await status_of(opened))["status"] == "Success"
    assert wherryd.cri.status(container).state == api_pb2.CONTAINER_RUNNING


async def test_a_terminal(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container = run_container(wherryd, pods, "sh", stdin=True, tty=True)
    url = attach_url(wherryd, container, stdin=True, tty=True)
    async with command(url, "stdin", "stdout", tty=True) as opened:
        await opened["resize"].write(b'{"Width":111,"Height":22}\n')
        await opened["stdin"].write(b"until [ \"$(stty size)\" = '22 111' ]; do :; done; echo size$((40+2))\n")
        await until(opened, b"size42")
    url = attach_url(wherryd, container, stdin=True, tty=True)
    async with command(url, "stdin", "stdout", tty=True) as opened:
        await opened["stdin"].write(b"exit 4\n")
        await opened["stdout"].read_all(10_000)
        assert (await status_of(opened))["status"] == "Success"
    assert wherryd.cri.wait_exit(container).exit_code == 4


async def test_who_attaches_before_the_start_misses_nothing(wherryd: Wherryd, pods: PodMaker) -> None:
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, pods.container(BUSYBOX, ("sh", "-c", "echo the very first")), config)
    async with command(attach_url(wherryd, container), "stdout", "stderr") as opened:
        wherryd.cri.start(container)
        assert await opened["stdout"].read_all(100) == b"the very first\n"


async def test_a_gigabyte_to_two_clients_in_bounded_memory(wherryd: Wherryd, pods: PodMaker) -> None:
    script = f"read go; head -c {GIGABYTE} /dev/zero; read go; wc -c"
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    wanted = pods.container(BUSYBOX, ("sh", "-c", script), stdin=True, stdin_once=True)
    wanted.log_path = ""
    container = wherryd.cri.create(pod, wanted, config)
    wherryd.cri.start(container)
    pids = [wherryd.process.pid]
    async with (
        command(attach_url(wherryd, container, stdin=True), "stdin", "stdout", "stderr") as one,
        command(attach_url(wherryd, container), "stdout", "stderr") as two,
    ):
        before = [memory(pid) for pid in pids]
        await one["stdin"].write(b"\n")

        async def gigabyte(opened: RemoteCommand) -> None:
            total = 0
            while total < GIGABYTE:
                total += len(await opened["stdout"].read())
            assert total == GIGABYTE

        await asyncio.gather(gigabyte(one), gigabyte(two))
        assert all(memory(pid) < start + GROWTH for pid, start in zip(pids, before, strict=True))
        await one["stdin"].write(b"\n")
        await pour(one["stdin"], GIGABYTE)
        assert int(await one["stdout"].read_all(100)) == GIGABYTE
        assert int(await two["stdout"].read_all(100)) == GIGABYTE
        assert all(memory(pid) < start + GROWTH for pid, start in zip(pids, before, strict=True))


async def test_lost_clients_leave_the_container_alone(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container = run_container(wherryd, pods, "sh", "-c", "while :; do echo tick; done", stdin=True)
    for _ in range(5):
        async with command(attach_url(wherryd, container, stdin=True), "stdin", "stdout", "stderr") as opened:
            await until(opened, b"tick")
    async with command(attach_url(wherryd, container), "stdout", "stderr") as opened:
        await until(opened, b"tick")
    assert wherryd.cri.status(container).state == api_pb2.CONTAINER_RUNNING


async def test_a_client_that_reads_nothing_holds_the_container_only_while_it_is_there(wherryd: Wherryd, pods: PodMaker) -> None:
    script = "read go; head -c 50000000 /dev/zero; echo done"
    _pod, container = run_container(wherryd, pods, "sh", "-c", script, stdin=True)
    async with command(attach_url(wherryd, container, stdin=True), "stdin", "stdout", "stderr") as opened:
        await opened["stdin"].write(b"\n")
        await opened["stdout"].read()
        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(1))])
        assert wherryd.cri.status(container).state == api_pb2.CONTAINER_RUNNING
    assert wherryd.cri.wait_exit(container).exit_code == 0


async def test_the_daemon_may_die_while_somebody_is_attached(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container = run_container(wherryd, pods, "sh", "-c", "while :; do echo tick; sleep 0.05; done", stdin=True)
    async with command(attach_url(wherryd, container, stdin=True), "stdin", "stdout", "stderr") as opened:
        await until(opened, b"tick")
        wherryd.kill()
        await asyncio.wait([opened.mux.gone], timeout=5)
    await asyncio.to_thread(wherryd.start)
    assert wherryd.cri.status(container).state == api_pb2.CONTAINER_RUNNING
    async with command(attach_url(wherryd, container, stdin=True), "stdin", "stdout", "stderr") as opened:
        await until(opened, b"tick")


def test_requests_that_make_no_sense(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container = run_container(wherryd, pods)
    for fields, code in (
        ({}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"stdout": True, "stderr": True, "tty": True}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"stdout": True, "container_id": "f" * 64}, grpc.StatusCode.NOT_FOUND),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            wherryd.cri.runtime.Attach(api_pb2.AttachRequest(**({"container_id": container} | fields)), timeout=10)
        assert caught.value.code() is code
    wherryd.cri.stop(container)
    with pytest.raises(grpc.RpcError) as caught:
        attach_url(wherryd, container)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_attach_without_standard_input(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container = run_container(wherryd, pods, "sh", "-c", "while :; do echo tick; sleep 0.05; done")
    async with command(attach_url(wherryd, container, stdin=True), "stdin", "stdout", "stderr") as opened:
        await opened["stdin"].write(b"nobody reads this")
        await until(opened, b"tick")


def test_monitors_keep_no_descriptor_of_a_client_that_left(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container = run_container(wherryd, pods, "cat", stdin=True)

    async def visit() -> None:
        async with command(attach_url(wherryd, container, stdin=True), "stdin", "stdout", "stderr") as opened:
            await opened["stdin"].write(b"hello\n")
            await until(opened, b"hello")

    asyncio.run(visit())
    total = _descriptors(wherryd)
    for _ in range(5):
        asyncio.run(visit())
    wait_for(lambda: _descriptors(wherryd) <= total, "the descriptors of those who left to be closed")


def _descriptors(wherryd: Wherryd) -> int:
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in wherryd.helpers() if os.path.exists(f"/proc/{pid}/fd"))


async def test_counting_to_the_end(wherryd: Wherryd, pods: PodMaker) -> None:
    """What the container wrote just before its end arrives, whoever is slow."""
    script = "read go; head -c 3000000 /dev/zero"
    _pod, container = run_container(wherryd, pods, "sh", "-c", script, stdin=True)
    async with command(attach_url(wherryd, container, stdin=True), "stdin", "stdout", "stderr") as opened:
        await opened["stdin"].write(b"\n")
        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0.5))])
        assert await count(opened["stdout"]) == 3_000_000
