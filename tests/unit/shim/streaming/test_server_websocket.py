"""The streaming server on loopback by WebSocket, SPDY tunnelled through it included."""

from __future__ import annotations

import asyncio
import base64
import json

import aiohttp
import pytest

from shim.streaming.requests import AttachStream, PortForwardStream
from tests.support.websocket import TUNNEL, TUNNEL_V2, tunnel
from tests.unit.shim.streaming.backend import Parts, order, tcp_echo


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


async def test_a_client_that_types_on_is_told_how_it_ended(parts: Parts) -> None:
    """To close a socket with input unread resets it: what was said last would be lost, and the client would see code 1006."""
    server, _backend = parts
    async with aiohttp.ClientSession() as session, session.ws_connect(
        await server.url(order("hello")), protocols=["v5.channel.k8s.io"]
    ) as socket:  # fmt: skip

        async def type_on() -> None:
            while not socket.closed:
                await socket.send_bytes(b"\x00" + b"x" * 4096)
                await asyncio.sleep(0)  # the server lives in the same loop

        typist = asyncio.ensure_future(type_on())
        said = [message.data for message in await messages(socket)]
        await asyncio.wait([typist])
        typist.exception()  # the end came in the middle of a word, perhaps
    assert json.loads(said[-1][1:])["status"] == "Success"
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


@pytest.mark.parametrize("protocol", [TUNNEL, TUNNEL_V2])
async def test_spdy_tunnelled_through_websocket(parts: Parts, protocol: str) -> None:
    server, _backend = parts
    url = await server.url(PortForwardStream(pod_id="p", ports=()))
    async with tcp_echo() as port, tunnel(url, protocol) as forward:
        data, error = forward.connect(port)
        await data.write(b"through the tunnel" * 1000)
        data.finish()
        assert await data.read_all(1 << 20) == b"through the tunnel" * 1000
        assert await error.read_all(10) == b""
