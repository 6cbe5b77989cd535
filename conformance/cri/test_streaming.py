"""Exec, Attach and PortForward over SPDY/3.1, which every runtime serves: streams, exit codes, terminals, tokens."""

from __future__ import annotations

import asyncio
import json
import urllib.parse
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from shim.errors import Unavailable
from shim.gen.runtime.v1 import api_pb2
from shim.streaming.dial import PortForward, RemoteCommand, dial
from tests.support.streaming import count, failed_with, pour, status_of
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from conformance.cri.subject import Pod, Subject

PORT = 7017
MEGABYTES = 20_000_000


def _exec(subject: Subject, container: str, *command: str, **wanted: bool) -> str:
    fields = {"stdout": True, "stderr": not wanted.get("tty", False)} | wanted
    request = api_pb2.ExecRequest(container_id=container, cmd=command, **fields)
    return str(subject.cri.runtime.Exec(request, timeout=10).url)


def _attach(subject: Subject, container: str, **wanted: bool) -> str:
    fields = {"stdout": True, "stderr": not wanted.get("tty", False)} | wanted
    return str(subject.cri.runtime.Attach(api_pb2.AttachRequest(container_id=container, **fields), timeout=10).url)


def _forward(subject: Subject, pod: str, *ports: int) -> str:
    return str(subject.cri.runtime.PortForward(api_pb2.PortForwardRequest(pod_sandbox_id=pod, port=ports), timeout=10).url)


@asynccontextmanager
async def _open(url: str, *names: str, tty: bool = False) -> AsyncIterator[RemoteCommand]:
    opened = await RemoteCommand.open(url, *names, tty=tty)
    try:
        await opened.accepted()
        yield opened
    finally:
        await opened.close()


@pytest.mark.parametrize("kind", ["exec", "attach", "port-forward"])
def test_url(subject: Subject, shared_pod: Pod, sleeper: str, kind: str) -> None:
    urls = {
        "exec": lambda: _exec(subject, sleeper, "true"),
        "attach": lambda: _attach(subject, sleeper),
        "port-forward": lambda: _forward(subject, shared_pod.id, 80),
    }
    first, second = (urllib.parse.urlsplit(urls[kind]()) for _ in range(2))
    assert first.scheme in {"http", "https"}
    assert first.port
    assert first.path != second.path


async def test_exec(subject: Subject, sleeper: str) -> None:
    async with _open(_exec(subject, sleeper, "sh", "-c", "echo out; echo err >&2; exit 7"), "stdout", "stderr") as opened:
        assert await opened["stdout"].read_all(100) == b"out\n"
        assert await opened["stderr"].read_all(100) == b"err\n"
        assert failed_with(await status_of(opened)) == 7


async def test_exec_that_succeeds(subject: Subject, sleeper: str) -> None:
    async with _open(_exec(subject, sleeper, "true"), "stdout", "stderr") as opened:
        assert (await status_of(opened))["status"] == "Success"


async def test_exec_of_nothing_known(subject: Subject, sleeper: str) -> None:
    async with _open(_exec(subject, sleeper, "nope-nope"), "stdout", "stderr") as opened:
        assert "nope-nope" in json.dumps(await status_of(opened))


async def test_exec_with_input(subject: Subject, sleeper: str) -> None:
    async with _open(_exec(subject, sleeper, "cat", stdin=True), "stdin", "stdout", "stderr") as opened:
        await opened["stdin"].write(b"there and back\n")
        opened["stdin"].finish()
        assert await opened["stdout"].read_all(100) == b"there and back\n"


async def test_exec_goes_on_after_the_input(subject: Subject, sleeper: str) -> None:
    url = _exec(subject, sleeper, "sh", "-c", "cat; echo after", stdin=True)
    async with _open(url, "stdin", "stdout", "stderr") as opened:
        opened["stdin"].finish()
        assert await opened["stdout"].read_all(100) == b"after\n"


async def test_exec_on_a_terminal(subject: Subject, sleeper: str) -> None:
    url = _exec(subject, sleeper, "sh", "-c", "tty; test -t 0 && echo yes", stdin=True, tty=True)
    async with _open(url, "stdin", "stdout", tty=True) as opened:
        assert b"/dev/pts/" in (found := await opened["stdout"].read_all(1000))
        assert b"yes" in found


async def test_size_of_a_terminal(subject: Subject, sleeper: str) -> None:
    script = "while ! stty size | grep -q '33 77'; do sleep 0.05; done; echo right"
    url = _exec(subject, sleeper, "sh", "-c", script, stdin=True, tty=True)
    async with asyncio.timeout(20), _open(url, "stdin", "stdout", tty=True) as opened:
        await opened["resize"].write(b'{"Width":77,"Height":33}\n')
        assert b"right" in await opened["stdout"].read_all(1000)


async def test_much_output(subject: Subject, sleeper: str) -> None:
    url = _exec(subject, sleeper, "head", "-c", str(MEGABYTES), "/dev/zero")
    async with asyncio.timeout(60), _open(url, "stdout", "stderr") as opened:
        assert await count(opened["stdout"]) == MEGABYTES


async def test_much_input(subject: Subject, sleeper: str) -> None:
    url = _exec(subject, sleeper, "sh", "-c", "wc -c", stdin=True)
    async with asyncio.timeout(60), _open(url, "stdin", "stdout", "stderr") as opened:
        await pour(opened["stdin"], MEGABYTES)
        assert int(await opened["stdout"].read_all(100)) == MEGABYTES


async def test_many_execs_at_once(subject: Subject, sleeper: str) -> None:
    async def one(number: int) -> bytes:
        async with _open(_exec(subject, sleeper, "echo", str(number)), "stdout", "stderr") as opened:
            return await opened["stdout"].read_all(100)

    async with asyncio.timeout(60):
        assert [int(found) for found in await asyncio.gather(*map(one, range(10)))] == list(range(10))


async def test_a_token_is_good_once(subject: Subject, sleeper: str) -> None:
    url = _exec(subject, sleeper, "true")
    async with _open(url, "stdout", "stderr") as opened:
        await status_of(opened)
    with pytest.raises(Unavailable):
        await dial(url, ["v4.channel.k8s.io"])


async def test_a_token_that_is_none(subject: Subject, sleeper: str) -> None:
    url = _exec(subject, sleeper, "true")
    with pytest.raises(Unavailable):
        await dial(url.rpartition("/")[0] + "/0123456789", ["v4.channel.k8s.io"])


# The containers below are slow to answer: containerd joins a client some time after it has accepted its streams.


async def test_attach(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.run(("sh", "-c", "read line; sleep 0.3; echo got $line; exit 4"), stdin=True)
    async with asyncio.timeout(20), _open(_attach(subject, container, stdin=True), "stdin", "stdout", "stderr") as opened:
        await opened["stdin"].write(b"this\n")
        assert await opened["stdout"].read() == b"got this\n"
    assert subject.cri.wait_exit(container).exit_code == 4


async def test_attach_of_two(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.run(("sh", "-c", "read line; sleep 0.3; echo got $line; sleep 100"), stdin=True)
    async with (
        asyncio.timeout(20),
        _open(_attach(subject, container), "stdout", "stderr") as second,
        _open(_attach(subject, container, stdin=True), "stdin", "stdout", "stderr") as first,
    ):
        await first["stdin"].write(b"this\n")
        assert await first["stdout"].read() == b"got this\n"
        assert await second["stdout"].read() == b"got this\n"


async def test_attach_outlives_nobody(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.run()
    async with asyncio.timeout(20), _open(_attach(subject, container), "stdout", "stderr") as opened:
        await asyncio.to_thread(subject.cri.stop, container)
        assert await opened["stdout"].read_all(100) == b""


@pytest.fixture(scope="module")
def server(endpoint: Subject) -> Pod:
    """Give a pod of its own network that sends back what it is sent."""
    pod = endpoint.run(network=True)
    container = pod.run(("sh", "-c", f"exec nc -ll -p {PORT} -e cat"))
    wait_for(
        lambda: f":{PORT:04X} " in endpoint.cri.execute(container, "cat", "/proc/net/tcp", "/proc/net/tcp6").stdout.decode(),
        "a listener",
    )
    return pod


@asynccontextmanager
async def _forwarding(subject: Subject, pod: str, *ports: int) -> AsyncIterator[PortForward]:
    session = await PortForward.open(_forward(subject, pod, *ports))
    try:
        yield session
    finally:
        session.mux.abort()


async def test_forward(subject: Subject, server: Pod) -> None:
    async with asyncio.timeout(20), _forwarding(subject, server.id, PORT) as session:
        data, _error = session.connect(PORT)
        await data.write(b"there and back")
        assert await _exactly(data, 14) == b"there and back"


async def _exactly(stream: Any, size: int) -> bytes:
    found = b""
    while len(found) < size and (part := await stream.read()):
        found += part
    return found


async def test_forwards_side_by_side(subject: Subject, server: Pod) -> None:
    async with asyncio.timeout(30), _forwarding(subject, server.id, PORT) as session:

        async def one(number: int) -> bytes:
            data, _error = session.connect(PORT)
            await data.write(b"%04d" % number)
            return await _exactly(data, 4)

        assert [int(found) for found in await asyncio.gather(*map(one, range(20)))] == list(range(20))


async def test_forward_of_much(subject: Subject, server: Pod) -> None:
    async with asyncio.timeout(60), _forwarding(subject, server.id, PORT) as session:
        data, _error = session.connect(PORT)

        async def send() -> None:
            for _ in range(MEGABYTES // 50_000):
                await data.write(bytes(50_000))

        sending = asyncio.create_task(send())
        assert len(await _exactly(data, MEGABYTES)) == MEGABYTES
        await sending


async def test_forward_to_nobody(subject: Subject, server: Pod) -> None:
    async with asyncio.timeout(20), _forwarding(subject, server.id, 1) as session:
        _data, error = session.connect(1)
        assert b"refused" in await error.read_rest(2000)


def test_forward_of_a_stopped_pod(subject: Subject, pod: Pod) -> None:
    from conformance.cri.subject import refused

    subject.cri.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=30)
    refused(lambda: _forward(subject, pod.id, 80))
