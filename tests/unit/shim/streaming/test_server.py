"""The streaming server on loopback: HTTP, tokens, SPDY and WebSocket, with an echo behind it."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.parse
from typing import TYPE_CHECKING

import aiohttp
import pytest

from shim.errors import Unavailable
from shim.streaming import spdy
from shim.streaming.dial import PortForward, RemoteCommand, dial
from shim.streaming.link import ConnectionGone
from shim.streaming.mux import SpdyMux
from shim.streaming.requests import AttachStream, ExecStream, PortForwardStream
from tests.unit.shim.streaming.backend import Backend, streaming, tcp_echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shim.streaming.server import StreamingServer

Parts = tuple["StreamingServer", Backend]


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    async with streaming() as pair:
        yield pair


def order(*command: str, stdin: bool = False, tty: bool = False) -> ExecStream:
    return ExecStream(container_id="c", command=command, stdin=stdin, stdout=True, stderr=False, tty=tty)


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


async def messages(socket: aiohttp.ClientWebSocketResponse) -> list[aiohttp.WSMessage]:
    return [message async for message in socket]


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
async def test_exec_over_websocket(parts: Parts, protocol: str) -> None:
    server, _backend = parts
    async with aiohttp.ClientSession() as session, session.ws_connect(
        await server.url(order("hello")), protocols=[protocol]
    ) as socket:  # fmt: skip
        assert socket.protocol == protocol
        parts_ = [message.data for message in await messages(socket)]
    assert parts_[0] == b"\x01"
    assert b"".join(part[1:] for part in parts_ if part[0] == 1) == b"hello"
    assert json.loads(parts_[-1][1:])["status"] == "Success"
    assert parts_[-1][0] == 3


async def test_websocket_in_base64(parts: Parts) -> None:
    server, _backend = parts
    async with aiohttp.ClientSession() as session, session.ws_connect(
        await server.url(order("cat", stdin=True)), protocols=["v4.base64.channel.k8s.io"]
    ) as socket:  # fmt: skip
        assert (await socket.receive()).data == "1"
        await socket.send_str("0" + base64.b64encode(b"hello").decode())
        assert (await socket.receive()).data == "1" + base64.b64encode(b"hello").decode()


async def test_the_close_signal_of_version_5(parts: Parts) -> None:
    server, _backend = parts
    async with aiohttp.ClientSession() as session, session.ws_connect(
        await server.url(order("cat", stdin=True)), protocols=["v5.channel.k8s.io"]
    ) as socket:  # fmt: skip
        await socket.send_bytes(b"\x00last words")
        await socket.send_bytes(b"\xff\x00")
        said = [message.data for message in await messages(socket)]
    assert b"".join(part[1:] for part in said if part[0] == 1) == b"last words"
    assert b'"message":"3"' in said[-1]
    assert socket.close_code == 1000


async def test_version_4_knows_no_close_signal(parts: Parts) -> None:
    server, _backend = parts
    async with aiohttp.ClientSession() as session, session.ws_connect(
        await server.url(order("cat", stdin=True)), protocols=["v4.channel.k8s.io"]
    ) as socket:  # fmt: skip
        for message in (b"\xff\x00", b"", b"\x09x", b"\x02not for you", b"\x00still open"):
            await socket.send_bytes(message)
        assert (await socket.receive()).data == b"\x01"
        assert (await socket.receive()).data == b"\x01still open"


async def test_websocket_protocols_are_negotiated(parts: Parts) -> None:
    server, _backend = parts
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(await server.url(order("x")), protocols=["v9.channel.k8s.io"])
        assert caught.value.status == 403
        async with session.ws_connect(await server.url(order("x"))) as socket:
            assert socket.protocol is None
            assert (await socket.receive()).data == b"\x01"


async def test_a_large_message_in_fragments(parts: Parts) -> None:
    server, _backend = parts
    async with aiohttp.ClientSession() as session, session.ws_connect(
        await server.url(order("cat", stdin=True)), protocols=["v5.channel.k8s.io"], max_msg_size=0
    ) as socket:  # fmt: skip

        async def send() -> None:
            await socket.send_bytes(b"\x00" + b"ab" * 2_000_000)
            await socket.send_bytes(b"\xff\x00")

        sending = asyncio.ensure_future(send())
        said = [message.data for message in await messages(socket)]
        await sending
    assert sum(len(part) - 1 for part in said if part[0] == 1) == 4_000_000


async def test_attach_over_websocket_ignores_what_was_not_asked_for(parts: Parts) -> None:
    server, backend = parts
    request = AttachStream(container_id="c", stdin=False, stdout=True, stderr=False, tty=False)
    async with aiohttp.ClientSession() as session, session.ws_connect(
        await server.url(request), protocols=["v4.channel.k8s.io"]
    ) as socket:  # fmt: skip
        await socket.send_bytes(b"\x00input")
        await messages(socket)
    assert backend.processes[0].stdin is None


async def test_port_forward_over_plain_websocket(parts: Parts) -> None:
    server, _backend = parts
    async with tcp_echo() as port, aiohttp.ClientSession() as session, session.ws_connect(
        await server.url(PortForwardStream(pod_id="p", ports=(port, 1))), protocols=["v4.channel.k8s.io"]
    ) as socket:  # fmt: skip
        first = [(await socket.receive()).data for _ in range(4)]
        for channel, number in ((0, port), (1, port), (2, 1), (3, 1)):
            assert bytes((channel,)) + number.to_bytes(2, "little") in first
        await socket.send_bytes(b"\x00ping")
        said = {message.data[0]: message.data for message in [await socket.receive(), await socket.receive()]}
        assert said[0] == b"\x00ping"
        assert b"nobody listens on 1" in said[3]


class TunnelLink:
    """A ByteLink on a client's WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._out: asyncio.Queue[bytes] = asyncio.Queue()
        self.on_data = lambda _data: None
        self.tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._receive())]

    async def _send(self) -> None:
        while True:
            await self.socket.send_bytes(await self._out.get())

    async def _receive(self) -> None:
        async for message in self.socket:
            self.on_data(message.data)

    def write(self, data: bytes) -> None:
        if data:
            self._out.put_nowait(data)

    async def drain(self) -> None:
        """Never full."""

    def hold(self, *, wanted: bool) -> None:
        """Never held."""

    async def finish(self) -> None:
        for task in self.tasks:
            task.cancel()

    def abort(self) -> None:
        """Nothing to do."""


@pytest.mark.parametrize("protocol", ["SPDY/3.1+portforward.k8s.io", "v2.portforward.k8s.io"])
async def test_spdy_tunnelled_through_websocket(parts: Parts, protocol: str) -> None:
    server, _backend = parts
    async with tcp_echo() as port, aiohttp.ClientSession() as session, session.ws_connect(
        await server.url(PortForwardStream(pod_id="p", ports=())), protocols=[protocol]
    ) as socket:  # fmt: skip
        assert socket.protocol == protocol
        link = TunnelLink(socket)
        mux = SpdyMux(link, spdy.Role.CLIENT)
        link.on_data = mux.receive
        forward = PortForward(mux)
        data, error = forward.connect(port)
        await data.write(b"through the tunnel" * 1000)
        data.finish()
        assert await data.read_all(1 << 20) == b"through the tunnel" * 1000
        assert await error.read_all(10) == b""
        await link.finish()


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
