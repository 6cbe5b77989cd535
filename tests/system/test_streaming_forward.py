"""Port-forward into real pods: IPv4 and IPv6 loopback, host network, many streams, half-close, a gigabyte."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import aiohttp
import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from shim.streaming.link import ConnectionGone
from tests.support.streaming import count, forwarding, memory, pour, run_container
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

GIGABYTE = 1_000_000_000
GROWTH = 24 * 1024 * 1024
PORT = 7007


def serve(wherryd: Wherryd, pods: PodMaker, program: str, *, host_network: bool = False) -> str:
    """Run a pod that serves each connection with a program, and give its id once it listens."""
    return listen(wherryd, pods, f"nc -ll -p {PORT} -e {program}", host_network=host_network)


def listen(wherryd: Wherryd, pods: PodMaker, line: str, *, host_network: bool = False) -> str:
    """Run a pod with a shell command that listens on PORT, and give its id once it does."""
    pod, container = run_container(wherryd, pods, "sh", "-c", line, host_network=host_network)

    def listens() -> bool:
        table = wherryd.cri.execute(container, "cat", "/proc/net/tcp", "/proc/net/tcp6").stdout.decode()
        return f":{PORT:04X} " in table

    wait_for(listens, "a listener")
    return pod


async def test_there_and_back(wherryd: Wherryd, pods: PodMaker) -> None:
    pod = serve(wherryd, pods, "cat")
    async with forwarding(wherryd, pod, PORT) as session:
        data, error = session.connect(PORT)
        await data.write(b"hello ")
        assert await data.read() == b"hello "
        await data.write(b"world")
        data.finish()
        assert await data.read_all(100) == b"world"
        assert await error.read_all(100) == b""


async def test_what_listens_on_ipv6_only(wherryd: Wherryd, pods: PodMaker) -> None:
    pod = listen(wherryd, pods, f"echo six > /tmp/index.html; exec httpd -f -p [::1]:{PORT} -h /tmp")
    async with forwarding(wherryd, pod) as session:
        data, _error = session.connect(PORT)
        await data.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await data.read_all(1000)).endswith(b"six\n")


async def test_a_pod_on_the_host_network(wherryd: Wherryd, pods: PodMaker) -> None:
    pod = serve(wherryd, pods, "cat", host_network=True)
    async with forwarding(wherryd, pod) as session:
        data, _error = session.connect(PORT)
        await data.write(b"host")
        assert await data.read() == b"host"


async def test_a_port_nobody_listens_on(wherryd: Wherryd, pods: PodMaker) -> None:
    pod, _container = run_container(wherryd, pods)
    async with forwarding(wherryd, pod) as session:
        for _ in range(2):
            data, error = session.connect(81)
            told = (await error.read_all(1000)).decode()
            assert "port 81" in told
            assert "127.0.0.1: connection refused; ::1: connection refused" in told
            assert await data.read() == b""


async def test_the_pod_closes_first(wherryd: Wherryd, pods: PodMaker) -> None:
    pod = serve(wherryd, pods, "hostname")
    async with forwarding(wherryd, pod) as session:
        data, error = session.connect(PORT)
        assert await data.read_all(100) == wherryd.cri.execute(*_container_of(wherryd, pod), "hostname").stdout
        assert await error.read_all(100) == b""


def _container_of(wherryd: Wherryd, pod: str) -> list[str]:
    return [container.id for container in wherryd.cri.containers() if container.pod_sandbox_id == pod]


ECHO = f"""
import asyncio
async def serve(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", {PORT}, backlog=500)
    print("ready", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@contextmanager
def echo_inside(wherryd: Wherryd) -> Iterator[None]:
    """Run an echo server in the network of the only pod: busybox's takes two connections at a time and resets others."""
    (name,) = os.listdir(wherryd.netns)
    arguments = ["nsenter", f"--net={wherryd.netns}/{name}", sys.executable, "-c", ECHO]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield
        server.terminate()


async def test_two_hundred_streams_side_by_side(wherryd: Wherryd, pods: PodMaker) -> None:
    pod, _container = run_container(wherryd, pods)
    with echo_inside(wherryd):
        async with forwarding(wherryd, pod) as session:

            async def one(number: int) -> bool:
                data, error = session.connect(PORT)
                await data.write(b"%d " % number * 5000)
                data.finish()
                text = await data.read_all(1 << 20)
                return text == b"%d " % number * 5000 and await error.read_all(1000) == b""

            assert all(await asyncio.gather(*(one(number) for number in range(200))))


async def test_a_gigabyte_each_way_in_bounded_memory(wherryd: Wherryd, pods: PodMaker) -> None:
    pod = serve(wherryd, pods, f"head -c {GIGABYTE} /dev/zero")
    async with forwarding(wherryd, pod) as session:
        data, _error = session.connect(PORT)
        await data.read()
        before = memory(wherryd.process.pid)
        assert await count(data) > GIGABYTE - 1_000_000
        assert memory(wherryd.process.pid) < before + GROWTH
    pod = serve(wherryd, pods, "wc -c")
    async with forwarding(wherryd, pod) as session:
        data, _error = session.connect(PORT)
        await pour(data, GIGABYTE)
        assert int(await data.read_all(100)) == GIGABYTE
        assert memory(wherryd.process.pid) < before + GROWTH


async def test_a_stream_that_nobody_reads_does_not_grow(wherryd: Wherryd, pods: PodMaker) -> None:
    pod = serve(wherryd, pods, "yes")
    async with forwarding(wherryd, pod) as session:
        data, _error = session.connect(PORT)
        await data.read()
        before = memory(wherryd.process.pid)
        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(1))])
        assert memory(wherryd.process.pid) < before + GROWTH
        data.reset()


async def test_the_pod_goes_while_a_stream_is_open(wherryd: Wherryd, pods: PodMaker) -> None:
    pod = serve(wherryd, pods, "cat")
    async with forwarding(wherryd, pod) as session:
        data, _error = session.connect(PORT)
        await data.write(b"x")
        assert await data.read() == b"x"
        wherryd.cri.remove_pod(pod)
        assert await data.read() == b""
        _data, error = session.connect(PORT)
        assert b"does not exist" in await error.read_all(1000)


async def test_over_plain_websocket(wherryd: Wherryd, pods: PodMaker) -> None:
    pod = serve(wherryd, pods, "cat")
    request = api_pb2.PortForwardRequest(pod_sandbox_id=pod, port=[PORT])
    url = wherryd.cri.runtime.PortForward(request, timeout=10).url
    async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=["v4.channel.k8s.io"]) as socket:
        assert [(await socket.receive()).data for _ in range(2)] == [b"\x00\x5f\x1b", b"\x01\x5f\x1b"]
        await socket.send_bytes(b"\x00ping")
        assert (await socket.receive()).data == b"\x00ping"


def test_requests_that_make_no_sense(wherryd: Wherryd, pods: PodMaker) -> None:
    pod, _container = run_container(wherryd, pods)
    for fields, code in (
        ({"pod_sandbox_id": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"pod_sandbox_id": "f" * 64}, grpc.StatusCode.NOT_FOUND),
        ({"port": [0]}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"port": [80, 65536]}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"port": [-1]}, grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            wherryd.cri.runtime.PortForward(api_pb2.PortForwardRequest(**({"pod_sandbox_id": pod} | fields)), timeout=10)
        assert caught.value.code() is code
    wherryd.cri.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod), timeout=20)
    with pytest.raises(grpc.RpcError) as caught:
        wherryd.cri.runtime.PortForward(api_pb2.PortForwardRequest(pod_sandbox_id=pod, port=[80]), timeout=10)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_client_that_goes_closes_its_connections(wherryd: Wherryd, pods: PodMaker) -> None:
    pod = serve(wherryd, pods, "cat")
    (container,) = _container_of(wherryd, pod)
    async with forwarding(wherryd, pod) as session:
        data, _error = session.connect(PORT)
        await data.write(b"x")
        assert await data.read() == b"x"

    def established() -> bool:
        return " 01 " in wherryd.cri.execute(container, "cat", "/proc/net/tcp").stdout.decode()

    await asyncio.to_thread(wait_for, lambda: not established(), "the connections inside the pod to end")
    with pytest.raises(ConnectionGone):
        await data.write(b"y")
