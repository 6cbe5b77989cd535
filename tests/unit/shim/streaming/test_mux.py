"""A connection that carries hundreds of streams to a peer that is slow."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from shim.streaming import spdy
from shim.streaming.link import ABUSE_LIMIT, SocketLink
from shim.streaming.mux import SpdyMux

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shim.streaming.stream import Stream

STREAMS = 300
PIECE = bytes(65536)


@asynccontextmanager
async def muxes() -> AsyncIterator[tuple[SpdyMux, SpdyMux, asyncio.Transport]]:
    """Give a server's and a client's end of one connection, and the client's transport."""
    made = []
    for end, role in zip(socket.socketpair(), (spdy.Role.SERVER, spdy.Role.CLIENT), strict=True):
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=end)
        link = SocketLink(transport)
        mux = SpdyMux(link, role)
        link.begin(mux.receive)
        made.append((mux, transport))
    (server, _), (client, reader) = made
    try:
        yield server, client, reader
    finally:
        for mux, _ in made:
            mux.abort()
            await asyncio.wait([mux.gone])


async def test_a_piece_of_each_of_many_streams_waits_for_a_slow_peer() -> None:
    """Together they are more than a connection may ever have unsent."""
    assert len(PIECE) * STREAMS > ABUSE_LIMIT
    async with muxes() as (server, client, reader):
        opened: list[Stream] = []
        server.on_stream = opened.append
        received = [client.open({"number": str(number)}) for number in range(STREAMS)]
        while len(opened) < STREAMS:
            await asyncio.sleep(0)
        for stream in opened:
            server.accept(stream)
        reader.pause_reading()
        writers = [asyncio.ensure_future(_write(stream)) for stream in opened]
        await asyncio.wait(writers, timeout=0.05)
        assert not server.gone.done()
        reader.resume_reading()
        async with asyncio.timeout(30):
            sizes = await asyncio.gather(*(_size(stream) for stream in received))
            await asyncio.gather(*writers)
        assert sizes == [2 * len(PIECE)] * STREAMS


async def _write(stream: Stream) -> None:
    for _ in range(2):
        await stream.write(PIECE)
    stream.finish()


async def _size(stream: Stream) -> int:
    size = 0
    while data := await stream.read():
        size += len(data)
    return size
