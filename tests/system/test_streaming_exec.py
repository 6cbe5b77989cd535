"""Exec with streams, in real containers: output, input, terminals, exit codes, lost clients, a gigabyte."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import aiohttp
import grpc
import pytest

from shim.errors import Unavailable
from shim.gen.runtime.v1 import api_pb2
from shim.streaming.dial import dial
from tests.support.streaming import command, count, exec_url, failed_with, memory, pour, run_container, status_of
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

GIGABYTE = 1_000_000_000
GROWTH = 24 * 1024 * 1024
"""Bytes the daemon may grow by while a gigabyte passes through it."""


@pytest.fixture
def container(wherryd: Wherryd, pods: PodMaker) -> str:
    return run_container(wherryd, pods)[1]


async def test_output_error_and_exit_code(wherryd: Wherryd, container: str) -> None:
    url = exec_url(wherryd, container, "sh", "-c", "echo out; echo err >&2; exit 7")
    async with command(url, "stdout", "stderr") as opened:
        assert await opened["stdout"].read_all(100) == b"out\n"
        assert await opened["stderr"].read_all(100) == b"err\n"
        assert failed_with(await status_of(opened)) == 7


async def test_success_and_death_by_a_signal(wherryd: Wherryd, container: str) -> None:
    async with command(exec_url(wherryd, container, "true"), "stdout", "stderr") as opened:
        assert (await status_of(opened))["status"] == "Success"
    async with command(exec_url(wherryd, container, "sh", "-c", "kill -9 $$"), "stdout", "stderr") as opened:
        assert failed_with(await status_of(opened)) == 137


async def test_a_program_that_is_not_there(wherryd: Wherryd, container: str) -> None:
    async with command(exec_url(wherryd, container, "nosuchprogram"), "stdout", "stderr") as opened:
        status = await status_of(opened)
        assert status["reason"] == "InternalError"
        assert "nosuchprogram" in status["message"]


async def test_input_until_its_end(wherryd: Wherryd, container: str) -> None:
    async with command(exec_url(wherryd, container, "cat", stdin=True), "stdin", "stdout", "stderr") as opened:
        await opened["stdin"].write(b"one\n")
        assert await opened["stdout"].read() == b"one\n"
        await opened["stdin"].write(b"two\n")
        opened["stdin"].finish()
        assert await opened["stdout"].read_all(100) == b"two\n"
        assert (await status_of(opened))["status"] == "Success"


async def test_input_that_nobody_reads_holds_nobody_up(wherryd: Wherryd, container: str) -> None:
    async with command(exec_url(wherryd, container, "true", stdin=True), "stdin", "stdout", "stderr") as opened:
        sending = asyncio.ensure_future(pour(opened["stdin"], 4_000_000))
        assert (await status_of(opened))["status"] == "Success"
        sending.cancel()


async def test_a_terminal_its_size_and_its_end(wherryd: Wherryd, container: str) -> None:
    script = "tty; read go; stty size; read go; stty size; exit 5"
    url = exec_url(wherryd, container, "sh", "-c", script, stdin=True, tty=True)
    async with command(url, "stdin", "stdout", tty=True) as opened:
        await opened["resize"].write(b'{"Width":100,"Height":33}')
        seen = b""
        for expected in (b"/dev/pts/", b"33 100", b"50 200"):
            while expected not in seen:
                seen += await opened["stdout"].read()
            await opened["resize"].write(b'{"Width":200,"Height":50}') if expected == b"33 100" else None
            await opened["stdin"].write(b"\n")
        assert failed_with(await status_of(opened)) == 5


async def test_ctrl_c_and_the_end_of_input_on_a_terminal(wherryd: Wherryd, container: str) -> None:
    async with command(exec_url(wherryd, container, "cat", stdin=True, tty=True), "stdin", "stdout", tty=True) as opened:
        await opened["stdin"].write(b"echo\n")
        assert b"echo" in await opened["stdout"].read()
        await opened["stdin"].write(b"\x03")
        assert failed_with(await status_of(opened)) == 130
    async with command(exec_url(wherryd, container, "cat", stdin=True, tty=True), "stdin", "stdout", tty=True) as opened:
        opened["stdin"].finish()
        assert (await status_of(opened))["status"] == "Success"


async def test_a_grandchild_that_keeps_the_output_does_not_keep_the_session(wherryd: Wherryd, container: str) -> None:
    async with command(exec_url(wherryd, container, "sh", "-c", "sleep 300 & echo done"), "stdout", "stderr") as opened:
        async with asyncio.timeout(10):
            assert await opened["stdout"].read_all(100) == b"done\n"
            assert (await status_of(opened))["status"] == "Success"


def processes(wherryd: Wherryd, container: str, *words: str) -> bool:
    table = wherryd.cri.execute(container, "ps", "-o", "args").stdout.decode()
    return " ".join(words) in table


async def test_a_client_that_goes_takes_its_terminal_away(wherryd: Wherryd, container: str) -> None:
    url = exec_url(wherryd, container, "sleep", "12345", stdin=True, tty=True)
    async with command(url, "stdin", "stdout", tty=True):
        assert processes(wherryd, container, "sleep 12345")
    await asyncio.to_thread(wait_for, lambda: not processes(wherryd, container, "sleep 12345"), "the hang-up")


async def test_a_process_without_its_client_is_killed_with_its_children(wherryd: Wherryd, container: str) -> None:
    url = exec_url(wherryd, container, "sh", "-c", "sleep 12346 & trap : HUP PIPE; while :; do sleep 12347; done", stdin=True)
    async with command(url, "stdin", "stdout", "stderr"):
        await asyncio.to_thread(wait_for, lambda: processes(wherryd, container, "sleep 12347"), "its start")
    await asyncio.to_thread(
        wait_for, lambda: not processes(wherryd, container, "sleep 1234"), "the end of the grace", seconds=20
    )


async def test_many_at_once(wherryd: Wherryd, container: str) -> None:
    async def one(number: int) -> None:
        url = await asyncio.to_thread(exec_url, wherryd, container, "sh", "-c", f"cat; exit {number}", stdin=True)
        async with command(url, "stdin", "stdout", "stderr") as opened:
            await opened["stdin"].write(b"x" * number)
            opened["stdin"].finish()
            assert await opened["stdout"].read_all(1000) == b"x" * number
            assert failed_with(await status_of(opened)) == number

    await asyncio.gather(*(one(number) for number in range(1, 21)))


async def test_a_gigabyte_each_way_in_bounded_memory(wherryd: Wherryd, container: str) -> None:
    pid = wherryd.process.pid
    async with command(exec_url(wherryd, container, "true"), "stdout", "stderr") as opened:
        await status_of(opened)  # so that everything is imported
    before = memory(pid)
    async with command(exec_url(wherryd, container, "head", "-c", str(GIGABYTE), "/dev/zero"), "stdout", "stderr") as opened:
        assert await count(opened["stdout"]) == GIGABYTE
        assert (await status_of(opened))["status"] == "Success"
    assert memory(pid) < before + GROWTH
    async with command(exec_url(wherryd, container, "wc", "-c", stdin=True), "stdin", "stdout", "stderr") as opened:
        await pour(opened["stdin"], GIGABYTE)
        assert int(await opened["stdout"].read_all(100)) == GIGABYTE
    assert memory(pid) < before + GROWTH


async def test_a_client_that_does_not_read_holds_the_process_back(wherryd: Wherryd, container: str) -> None:
    pid = wherryd.process.pid
    async with command(exec_url(wherryd, container, "yes"), "stdout", "stderr") as opened:
        before = memory(pid)
        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(1.5))])
        assert opened["stdout"].kept < 4 * 1024 * 1024
        assert memory(pid) < before + GROWTH
    assert wherryd.cri.ready()


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
async def test_over_websocket(wherryd: Wherryd, container: str, protocol: str) -> None:
    url = exec_url(wherryd, container, "sh", "-c", "read line; echo got $line; exit 4", stdin=True)
    async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=[protocol]) as socket:
        await socket.send_bytes(b"\x00hello\n")
        said = [message.data async for message in socket]
    assert b"".join(part[1:] for part in said if part[0] == 1) == b"got hello\n"
    assert failed_with(json.loads(b"".join(part[1:] for part in said if part[0] == 3))) == 4


async def test_tokens_are_good_once(wherryd: Wherryd, container: str) -> None:
    url = exec_url(wherryd, container, "true")
    async with command(url, "stdout", "stderr") as opened:
        await status_of(opened)
    with pytest.raises(Unavailable, match="404"):
        await dial(url, [])


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"cmd": ["true"]}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"stdout": True}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"cmd": ["true"], "stdout": True, "stderr": True, "tty": True}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"cmd": ["true"], "stdout": True, "container_id": "f" * 64}, grpc.StatusCode.NOT_FOUND),
        ({"cmd": ["true"], "stdout": True, "container_id": ""}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_requests_that_make_no_sense(
    wherryd: Wherryd, container: str, fields: dict[str, object], code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        wherryd.cri.runtime.Exec(api_pb2.ExecRequest(**({"container_id": container} | fields)), timeout=10)
    assert caught.value.code() is code


async def test_a_container_that_has_ended_since(wherryd: Wherryd, container: str) -> None:
    url = exec_url(wherryd, container, "true")
    wherryd.cri.stop(container)
    async with command(url, "stdout", "stderr") as opened:
        assert "not running" in (await status_of(opened))["message"]
    with pytest.raises(grpc.RpcError) as caught:
        exec_url(wherryd, container, "true")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_nothing_is_left_of_streams_cut_in_the_middle(wherryd: Wherryd, container: str) -> None:
    async with command(exec_url(wherryd, container, "true"), "stdout", "stderr") as opened:
        await status_of(opened)
    folder = f"/proc/{wherryd.process.pid}/fd"
    before = len(os.listdir(folder))
    for number in range(10):
        url = exec_url(wherryd, container, "cat", stdin=True, tty=bool(number % 2))
        async with command(url, "stdin", "stdout", *([] if number % 2 else ["stderr"]), tty=bool(number % 2)) as opened:
            await opened["stdin"].write(b"x")
    await asyncio.to_thread(wait_for, lambda: len(os.listdir(folder)) <= before, "the daemon's descriptors to be closed")
