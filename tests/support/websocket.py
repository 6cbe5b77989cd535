"""A client's end of a WebSocket: channels of a remote command, or a tunnel that SPDY runs through."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

from shim.streaming import spdy
from shim.streaming.dial import PortForward
from shim.streaming.mux import SpdyMux

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
TUNNEL, TUNNEL_V2 = "SPDY/3.1+portforward.k8s.io", "v2.portforward.k8s.io"
KEPT = 32
"""Messages that wait in the tunnel, either way."""


class TunnelLink:
    """A ByteLink on a client's WebSocket, which holds its writer back and lets itself be held."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._out: asyncio.Queue[bytes] = asyncio.Queue()
        self._wanted = asyncio.Event()
        self._wanted.set()
        self.on_data = lambda _data: None
        self.tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._receive())]

    async def _send(self) -> None:
        while True:
            await self.socket.send_bytes(await self._out.get())
            self._out.task_done()

    async def _receive(self) -> None:
        async for message in self.socket:
            await self._wanted.wait()
            self.on_data(message.data)
        if not self.gone.done():
            self.gone.set_result(None)

    def write(self, data: bytes) -> None:
        if data:
            self._out.put_nowait(data)

    async def drain(self) -> None:
        if self._out.qsize() > KEPT:
            await self._out.join()

    def hold(self, *, wanted: bool) -> None:
        if wanted:
            self._wanted.clear()
        else:
            self._wanted.set()

    async def finish(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)

    def abort(self) -> None:
        """Nothing to do: the WebSocket is somebody else's."""


@asynccontextmanager
async def tunnel(url: str, protocol: str = TUNNEL) -> AsyncIterator[PortForward]:
    """Give a port-forward session that runs through a WebSocket."""
    async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=[protocol], max_msg_size=0) as socket:
        assert socket.protocol == protocol
        link = TunnelLink(socket)
        mux = SpdyMux(link, spdy.Role.CLIENT)
        link.on_data = mux.receive
        try:
            yield PortForward(mux)
        finally:
            await link.finish()


class Channels:
    """A WebSocket whose messages begin with their channel."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, data: bytes, channel: int = STDIN) -> None:
        await self.socket.send_bytes(bytes((channel,)) + data)

    async def end(self, channel: int = STDIN) -> None:
        """Say that a channel ends, as version 5 can."""
        await self.socket.send_bytes(bytes((255, channel)))

    async def resize(self, width: int, height: int) -> None:
        await self.send(json.dumps({"Width": width, "Height": height}).encode(), RESIZE)

    async def pour(self, size: int, chunk: int = 1_000_000) -> None:
        """Send so many zero bytes."""
        for _ in range(size // chunk):
            await self.send(bytes(chunk))

    async def until(self, text: bytes, channel: int = STDOUT) -> bytes:
        """Read until `text` has come on a channel."""
        seen = b""
        while text not in seen:
            message = await self.socket.receive()
            assert message.type is aiohttp.WSMsgType.BINARY, f"the connection ended after {seen!r}"
            if message.data[0] == channel:
                seen += message.data[1:]
        return seen

    async def read(self, size: int, channel: int = STDOUT) -> int:
        """Read that many bytes of a channel, and give how many came."""
        total = 0
        while total < size:
            message = await self.socket.receive()
            assert message.type is aiohttp.WSMsgType.BINARY, f"the connection ended after {total} bytes"
            total += len(message.data) - 1 if message.data[0] == channel else 0
        return total

    async def rest(self) -> dict[int, bytes]:
        """Read to the end and give what came on each channel."""
        found: dict[int, bytes] = {}
        async for message in self.socket:
            found[message.data[0]] = found.get(message.data[0], b"") + message.data[1:]
        return found


@asynccontextmanager
async def channels(url: str, protocol: str = V5) -> AsyncIterator[Channels]:
    """Open a remote command over WebSocket."""
    async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=[protocol], max_msg_size=0) as socket:
        yield Channels(socket)


def status_in(found: dict[int, bytes]) -> dict[str, Any]:
    """Give the status object of the error channel."""
    decoded = json.loads(found[ERROR])
    assert isinstance(decoded, dict)
    return decoded
