"""The streaming server on loopback: HTTP, tokens, SPDY and WebSocket, with an echo behind it."""

from __future__ import annotations

import asyncio
import json
import urllib.parse

import pytest

from shim.errors import Unavailable
from shim.streaming import spdy
from shim.streaming.dial import PortForward, RemoteCommand, dial
from shim.streaming.link import ConnectionGone
from shim.streaming.requests import PortForwardStream
from tests.unit.shim.streaming.backend import Parts, order, streaming, tcp_echo


async def raw_request(url: str, head: str, *, path: str = "") -> str:
    """Send a head and give everything that comes back."""
    target = urllib.parse.urlsplit(url)
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    writer.write(f"POST {path or target.path} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer.decode()


SPDY_HEAD = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"


async def test_urls_have_distinct_tokens_on_loopback(parts: Parts) -> None:
    server, _backend = parts
    one, two = await server.url(order("x")), await server.url(PortForwardStream(pod_id="p", ports=()))
    assert one.startswith("http://127.0.0.1:")
    assert "/exec/" in one
    assert "/portforward/" in two
    assert one.rpartition("/")[2] != two.rpartition("/")[2]


async def test_exec_over_spdy(parts: Parts) -> None:
    server, backend = parts
    command = await RemoteCommand.open(await server.url(order("hello", "world")), "stdout")
    assert await command["stdout"].read_all(100) == b"hello world"
    assert json.loads(await command["error"].read_all(1000))["status"] == "Success"
    await command.close()
    assert backend.processes[0].closed.is_set()


async def test_stdin_its_end_and_the_exit_code(parts: Parts) -> None:
    server, _backend = parts
    command = await RemoteCommand.open(await server.url(order("cat", stdin=True)), "stdin", "stdout")
    await command["stdin"].write(b"one ")
    assert await command["stdout"].read() == b"one "
    await command["stdin"].write(b"two")
    command["stdin"].finish()
    assert await command["stdout"].read_all(100) == b"two"
    assert b'"message":"3"' in await command["error"].read_all(1000)
    await command.close()


async def test_sizes_of_the_terminal(parts: Parts) -> None:
    server, backend = parts
    command = await RemoteCommand.open(await server.url(order("cat", stdin=True, tty=True)), "stdin", "stdout", tty=True)
    await command.accepted()
    for text in (b'{"Width":80,"Height":24}\n{"Wid', b'th":100,"Height":30}', b"[1] {} nonsense"):
        await command["resize"].write(text)
    await command["resize"].write(b'{"Width":0,"Height":24}')
    command["stdin"].finish()
    await command["error"].read_all(1000)
    assert backend.processes[0].sizes == [(80, 24), (100, 30)]
    await command.close()


async def test_what_cannot_be_started_is_told_on_the_error_stream(parts: Parts) -> None:
    server, _backend = parts
    command = await RemoteCommand.open(await server.url(order("missing")), "stdout")
    told = json.loads(await command["error"].read_all(1000))
    assert told["reason"] == "InternalError"
    assert "there is no such program" in told["message"]
    await command.close()


async def test_a_client_that_goes_loses_its_process(parts: Parts) -> None:
    server, backend = parts
    command = await RemoteCommand.open(await server.url(order("cat", stdin=True)), "stdin", "stdout")
    await command.accepted()
    await command.close()
    async with asyncio.timeout(5):
        await backend.processes[0].closed.wait()


async def test_a_token_is_good_once_and_for_its_own_path(parts: Parts) -> None:
    server, _backend = parts
    url = await server.url(order("x"))
    await (await RemoteCommand.open(url, "stdout")).close()
    with pytest.raises(Unavailable, match=r"404.*unknown, used or expired"):
        await dial(url, [])
    other = (await server.url(order("x"))).replace("/exec/", "/attach/")
    with pytest.raises(Unavailable, match="404"):
        await dial(other, [])


async def test_a_token_expires() -> None:
    async with streaming(token_lifetime=0.0) as (server, _backend):
        with pytest.raises(Unavailable, match="404"):
            await dial(await server.url(order("x")), [])


async def test_versions_of_the_protocol(parts: Parts) -> None:
    server, _backend = parts
    answer = await raw_request(await server.url(order("x")), SPDY_HEAD + "X-Stream-Protocol-Version: v9.channel.k8s.io\r\n")
    assert answer.startswith("HTTP/1.1 403 ")
    assert "X-Accepted-Stream-Protocol-Versions: v4.channel.k8s.io".lower() in answer.lower()
    for offered, version in ((["v3.channel.k8s.io"], 3), (["v2.channel.k8s.io"], 2), (["channel.k8s.io"], 1), ([], 1)):
        mux = await dial(await server.url(order("x y")), offered)
        command = RemoteCommand(mux, ["error", "stdout"])
        assert await command["stdout"].read_all(100) == b"x y"
        assert await command["error"].read_all(100) == b"", version
        await command.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("", 426),
        ("Connection: keep-alive\r\nUpgrade: SPDY/3.1\r\n", 426),
        ("Connection: Upgrade\r\nUpgrade: h2c\r\n", 426),
        (SPDY_HEAD + "Content-Length: 5\r\n", 400),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", 426),
        ("Transfer-Encoding: chunked\r\n" + SPDY_HEAD, 400),
        ("Broken header\r\n", 400),
        ("X: " + "y" * 2_000_000 + "\r\n", 431),
    ],
)
async def test_requests_that_are_refused(parts: Parts, head: str, status: int) -> None:
    server, _backend = parts
    answer = await raw_request(await server.url(order("x")), head)
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert "connection: close" in answer.lower()


async def test_unknown_paths(parts: Parts) -> None:
    server, _backend = parts
    url = await server.url(order("x"))
    for path in ("/", "/exec/", "/exec/guess", "/../exec"):
        assert (await raw_request(url, SPDY_HEAD, path=path)).startswith("HTTP/1.1 404 ")


async def test_a_head_that_comes_byte_by_byte(parts: Parts) -> None:
    server, _backend = parts
    target = urllib.parse.urlsplit(await server.url(order("x")))
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    for byte in f"POST {target.path} HTTP/1.1\r\nHost: x\r\n{SPDY_HEAD}\r\n".encode():
        writer.write(bytes((byte,)))
        await writer.drain()
    assert b"101 Switching Protocols" in await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def test_frames_right_behind_the_head_are_not_lost(parts: Parts) -> None:
    server, _backend = parts
    target = urllib.parse.urlsplit(await server.url(order("early")))
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    client = spdy.Connection(spdy.Role.CLIENT)
    frames = b"".join(
        client.send(spdy.StreamOpened(stream_id=number, headers=(("streamtype", kind),)))
        for number, kind in ((1, "error"), (3, "stdout"))
    )
    writer.write(f"POST {target.path} HTTP/1.1\r\nHost: x\r\n{SPDY_HEAD}\r\n".encode() + frames)
    await reader.readuntil(b"\r\n\r\n")
    client.receive_data(await asyncio.wait_for(reader.read(4096), 5))
    assert client.next_event() == spdy.StreamAccepted(stream_id=1)
    writer.close()


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\x80\x02\0\x01\0\0\0\0", id="version"),
        pytest.param(b"\x80\x03\0\x01\xff\xff\xff\xff", id="huge"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n\r\n" * 100, id="a data frame of a stream that never was"),
        pytest.param(b"\x80\x03\0\x01\0\0\0\x0c" + b"x" * 12, id="headers"),
    ],
)
async def test_garbage_after_the_upgrade_ends_the_connection_only(parts: Parts, garbage: bytes) -> None:
    server, _backend = parts
    target = urllib.parse.urlsplit(await server.url(order("x")))
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    writer.write(f"POST {target.path} HTTP/1.1\r\nHost: x\r\n{SPDY_HEAD}\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    writer.write(garbage)
    if not garbage.startswith(b"GET"):
        await asyncio.wait_for(reader.read(), 5)
    writer.close()
    command = await RemoteCommand.open(await server.url(order("still", "here")), "stdout")
    assert await command["stdout"].read_all(100) == b"still here"
    await command.close()


async def test_streams_nobody_expects_are_reset(parts: Parts) -> None:
    server, _backend = parts
    mux = await dial(await server.url(order("x")), ["v4.channel.k8s.io"])
    odd = [mux.open({"streamtype": "stdin"}), mux.open({"streamtype": "other"}), mux.open({})]
    for stream in odd:
        with pytest.raises(ConnectionGone):
            await stream.read()
    command = RemoteCommand(mux, ["error", "stdout"])
    assert await command["stdout"].read_all(10) == b"x"
    await command.close()


async def test_a_client_that_reads_slowly_holds_the_process_and_not_memory(parts: Parts) -> None:
    server, backend = parts
    command = await RemoteCommand.open(await server.url(order("cat", stdin=True)), "stdin", "stdout")
    total = 64 * 1024 * 1024

    async def send() -> None:
        for _ in range(total // 65536):
            await command["stdin"].write(bytes(65536))
        command["stdin"].finish()

    sending = asyncio.ensure_future(send())
    await command["stdout"].read()
    done, _pending = await asyncio.wait([sending], timeout=0.5)
    assert not done  # our own streams, the pipe and the sockets are full, and nothing else takes bytes
    assert command["stdout"].kept <= 1024 * 1024
    rest = 0
    while data := await command["stdout"].read():
        rest += len(data)
    await sending
    assert rest > total - 2 * 65536
    await command["error"].read_all(1000)
    await command.close()
    assert backend.processes[0].closed.is_set()


async def test_port_forward_over_spdy_with_many_streams(parts: Parts) -> None:
    server, _backend = parts
    async with tcp_echo() as port:
        session = await PortForward.open(await server.url(PortForwardStream(pod_id="p", ports=())))

        async def one(number: int) -> bytes:
            data, error = session.connect(port)
            await data.write(b"%d" % number * 1000)
            data.finish()
            echoed = await data.read_all(1 << 20)
            assert await error.read_all(100) == b""
            return echoed

        results = await asyncio.gather(*(one(number) for number in range(100)))
        assert results == [b"%d" % number * 1000 for number in range(100)]
        session.mux.abort()


async def test_port_forward_tells_what_fails_and_goes_on(parts: Parts) -> None:
    server, _backend = parts
    async with tcp_echo() as port:
        session = await PortForward.open(await server.url(PortForwardStream(pod_id="p", ports=())))
        data, error = session.connect(1)
        assert b"nobody listens on 1" in await error.read_all(1000)
        assert await data.read() == b""
        data, error = session.connect(port)
        await data.write(b"x")
        assert await data.read() == b"x"
        for headers in ({"streamtype": "data", "port": "0"}, {"streamtype": "data", "port": "x"}, {"port": "80"}):
            with pytest.raises(ConnectionGone):
                await session.mux.open(headers).read()
        session.mux.abort()


async def test_port_forward_without_request_ids(parts: Parts) -> None:
    server, _backend = parts
    async with tcp_echo() as port:
        mux = await dial(await server.url(PortForwardStream(pod_id="p", ports=())), [])
        mux.open({"streamtype": "error", "port": str(port)})
        data = mux.open({"streamtype": "data", "port": str(port)})
        await data.write(b"old client")
        assert await data.read() == b"old client"
        mux.abort()


async def test_an_idle_connection_is_closed() -> None:
    async with streaming(idle_timeout=0.2) as (server, backend):
        command = await RemoteCommand.open(await server.url(order("cat", stdin=True)), "stdin", "stdout")
        await command.accepted()
        async with asyncio.timeout(5):
            await asyncio.wait([command.mux.gone])
            await backend.processes[0].closed.wait()
        await command.close()


async def test_closing_the_server_ends_what_runs() -> None:
    async with streaming() as (server, backend):
        command = await RemoteCommand.open(await server.url(order("cat", stdin=True)), "stdin", "stdout")
        await command.accepted()
    assert backend.processes[0].closed.is_set()
    async with asyncio.timeout(5):
        await asyncio.wait([command.mux.gone])
    await command.close()
