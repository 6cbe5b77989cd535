"""Exec, attach and port-forward over WebSocket, into real containers: channels, resize, half-close, SPDY in a tunnel, 1 GB."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.streaming import attach_url, command, count, exec_url, memory, pour, run_container, status_of
from tests.support.wait import wait_for
from tests.support.websocket import STDOUT, TUNNEL, TUNNEL_V2, V4, V5, channels, status_in, tunnel

if TYPE_CHECKING:
    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd
    from tests.support.websocket import Channels

pytestmark = pytest.mark.system

GIGABYTE = 1_000_000_000
GROWTH = 24 * 1024 * 1024
PORT = 7019
TAKE = f"head -c {GIGABYTE} >/dev/null; echo taken"
"""Reads a gigabyte, and no byte less; busybox counts bytes slower than all the rest carries them."""


def serve(wherryd: Wherryd, pods: PodMaker, program: str) -> str:
    """Run a pod that serves each connection with a program, and give a port-forward's URL."""
    pod, container = run_container(wherryd, pods, "sh", "-c", f"exec nc -ll -p {PORT} -e {program}")

    def listens() -> bool:
        return f":{PORT:04X} " in wherryd.cri.execute(container, "cat", "/proc/net/tcp", "/proc/net/tcp6").stdout.decode()

    wait_for(listens, "a listener")
    return forward_url(wherryd, pod)


def forward_url(wherryd: Wherryd, pod: str) -> str:
    request = api_pb2.PortForwardRequest(pod_sandbox_id=pod, port=[PORT])
    return str(wherryd.cri.runtime.PortForward(request, timeout=10).url)


def taken(wherryd: Wherryd) -> int:
    """Give the memory of the daemon and of all that it has forked."""
    return sum(memory(pid) for pid in (wherryd.process.pid, *wherryd.helpers()) if os.path.exists(f"/proc/{pid}/smaps_rollup"))


async def back(opened: Channels, channel: int) -> None:
    """Read that a gigabyte was taken, and the one that comes after it."""
    word, _, begun = (await opened.until(b"\n", channel)).partition(b"\n")
    assert word == b"taken"
    assert len(begun) + await opened.read(GIGABYTE - len(begun), channel) == GIGABYTE


@pytest.mark.parametrize("protocol", [TUNNEL, TUNNEL_V2])
async def test_tunnel_into_a_pod(wherryd: Wherryd, pods: PodMaker, protocol: str) -> None:
    url = serve(wherryd, pods, "cat")
    async with asyncio.timeout(20), tunnel(url, protocol) as session:
        first, error = session.connect(PORT)
        second, _error = session.connect(PORT)
        for data, word in ((first, b"one"), (second, b"two")):
            await data.write(word)
            assert await data.read() == word
        first.finish()
        assert await first.read_all(100) == b""
        assert await error.read_all(100) == b""
        _data, refusal = session.connect(1)
        assert b"connection refused" in await refusal.read_rest(1000)


async def test_a_gigabyte_each_way_through_a_tunnel_in_bounded_memory(wherryd: Wherryd, pods: PodMaker) -> None:
    url = serve(wherryd, pods, f"head -c {GIGABYTE} /dev/zero")
    async with tunnel(url) as session:
        data, _error = session.connect(PORT)
        first = len(await data.read())
        before = taken(wherryd)
        assert first + await count(data) == GIGABYTE
        assert taken(wherryd) < before + GROWTH
    wherryd.cri.remove_all()
    url = serve(wherryd, pods, f"sh -c '{TAKE}; cat'")
    async with tunnel(url) as session:
        data, _error = session.connect(PORT)
        await pour(data, GIGABYTE)
        assert await data.read_all(100) == b"taken\n"
        assert taken(wherryd) < before + GROWTH


async def test_a_gigabyte_each_way_by_plain_port_forward_in_bounded_memory(wherryd: Wherryd, pods: PodMaker) -> None:
    url = serve(wherryd, pods, f"sh -c '{TAKE}; head -c {GIGABYTE} /dev/zero'")
    async with channels(url, V4) as opened:
        assert [(await opened.socket.receive()).data for _ in range(2)] == [
            bytes((channel,)) + PORT.to_bytes(2, "little") for channel in (0, 1)
        ]
        before = taken(wherryd)
        await opened.pour(GIGABYTE)
        await back(opened, 0)
        assert taken(wherryd) < before + GROWTH


async def test_a_gigabyte_each_way_by_exec_in_bounded_memory(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container = run_container(wherryd, pods)
    script = f"{TAKE}; head -c {GIGABYTE} /dev/zero"
    async with channels(exec_url(wherryd, container, "sh", "-c", script, stdin=True)) as opened:
        before = taken(wherryd)
        await opened.pour(GIGABYTE)
        await back(opened, STDOUT)
        assert status_in(await opened.rest())["status"] == "Success"
        assert taken(wherryd) < before + GROWTH


async def test_a_gigabyte_each_way_by_attach_in_bounded_memory(wherryd: Wherryd, pods: PodMaker) -> None:
    script = f"read go; head -c {GIGABYTE} /dev/zero; {TAKE}; cat"
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    wanted = pods.container("busybox", ("sh", "-c", script), stdin=True, stdin_once=True)
    wanted.log_path = ""  # the disk is not what is tried here
    container = wherryd.cri.create(pod, wanted, config)
    wherryd.cri.start(container)
    async with channels(attach_url(wherryd, container, stdin=True)) as opened:
        before = taken(wherryd)
        await opened.send(b"\n")
        assert await opened.read(GIGABYTE) == GIGABYTE
        await opened.pour(GIGABYTE)
        await opened.end()
        found = await opened.rest()
        assert found[STDOUT] == b"taken\n"
        assert status_in(found)["status"] == "Success"
        assert taken(wherryd) < before + GROWTH
    assert wherryd.cri.wait_exit(container).exit_code == 0


async def test_attached_by_all_protocols_at_once(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container = run_container(wherryd, pods, "cat", stdin=True)
    async with (
        asyncio.timeout(20),
        command(attach_url(wherryd, container, stdin=True), "stdin", "stdout", "stderr") as spdy,
        channels(attach_url(wherryd, container, stdin=True), V5) as five,
        channels(attach_url(wherryd, container, stdin=True), V4) as four,
        channels(attach_url(wherryd, container), V4) as watcher,
    ):
        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0.5))])  # who speaks first is not known to the others
        for number, send in enumerate((spdy["stdin"].write, five.send, four.send)):
            word = b"word %d\n" % number
            await send(word)
            seen = b""
            while word not in seen:
                seen += await spdy["stdout"].read()
            for one in (five, four, watcher):
                await one.until(word)
    assert wherryd.cri.status(container).state == api_pb2.CONTAINER_RUNNING


@pytest.mark.parametrize("protocol", [V4, V5])
@pytest.mark.parametrize("kind", ["exec", "attach"])
async def test_size_of_a_terminal(wherryd: Wherryd, pods: PodMaker, kind: str, protocol: str) -> None:
    _pod, container = run_container(wherryd, pods, "sh", stdin=True, tty=True)
    makers = {"exec": lambda: exec_url(wherryd, container, "sh", stdin=True, tty=True)}
    makers["attach"] = lambda: attach_url(wherryd, container, stdin=True, tty=True)
    async with asyncio.timeout(20), channels(makers[kind](), protocol) as opened:
        for width, height in ((101, 31), (77, 22)):
            await opened.resize(width, height)
            await opened.send(
                b"until [ \"$(stty size)\" = '%d %d' ]; do :; done; echo size$((%d+1))\n" % (height, width, width)
            )
            await opened.until(b"size%d" % (width + 1))
        await opened.resize(0, 0)
        await opened.send(b"exit 3\n")
        found = await opened.rest()
    assert ("NonZeroExitCode" in str(status_in(found))) is (kind == "exec")


async def test_input_half_closed(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container = run_container(wherryd, pods, "sh", "-c", "cat; echo over; exit 5", stdin=True, stdin_once=True)
    async with asyncio.timeout(20), channels(exec_url(wherryd, container, "sh", "-c", "cat; echo after", stdin=True)) as opened:
        await opened.send(b"words\n")
        await opened.end()
        assert (await opened.rest())[STDOUT] == b"words\nafter\n"
    async with asyncio.timeout(20), channels(attach_url(wherryd, container, stdin=True)) as opened:
        await opened.send(b"words\n")
        await opened.end()
        assert (await opened.rest())[STDOUT] == b"words\nover\n"
    assert wherryd.cri.wait_exit(container).exit_code == 5


async def test_nothing_is_left_of_tunnels_cut_in_the_middle(wherryd: Wherryd, pods: PodMaker) -> None:
    url = serve(wherryd, pods, "cat")
    pod = wherryd.cri.pods()[0].id
    async with tunnel(url) as session:
        data, _error = session.connect(PORT)
        await data.write(b"x")
        assert await data.read() == b"x"
    folder = f"/proc/{wherryd.process.pid}/fd"
    wait = asyncio.to_thread(wait_for, lambda: not established(wherryd), "the connections to end")
    await wait
    before = len(os.listdir(folder))
    for _ in range(5):
        async with tunnel(forward_url(wherryd, pod)) as session:
            for _stream in range(3):
                data, _error = session.connect(PORT)
                await data.write(b"x" * 100_000)
            assert await data.read()
    await asyncio.to_thread(wait_for, lambda: len(os.listdir(folder)) <= before, "the daemon's descriptors to be closed")
    await asyncio.to_thread(wait_for, lambda: not established(wherryd), "the connections to end")


def established(wherryd: Wherryd) -> bool:
    """Say whether a connection is open inside the only pod."""
    (container,) = wherryd.cri.containers()
    return " 01 " in wherryd.cri.execute(container.id, "cat", "/proc/net/tcp").stdout.decode()


async def test_status_of_both_protocols_is_the_same(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container = run_container(wherryd, pods)
    async with command(exec_url(wherryd, container, "sh", "-c", "exit 9"), "stdout", "stderr") as opened:
        expected = await status_of(opened)
    for protocol in (V4, V5):
        async with channels(exec_url(wherryd, container, "sh", "-c", "exit 9"), protocol) as socket:
            assert status_in(await socket.rest()) == expected
