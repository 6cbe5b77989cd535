"""Port-forward on this side: local listeners whose connections become streams."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from shim.client.errors import ClientError
from shim.errors import WherryError
from shim.streaming.dial import PortForward
from shim.streaming.link import ConnectionGone

if TYPE_CHECKING:
    from shim.streaming.stream import Stream

_READ_SIZE = 64 * 1024
_MESSAGE_LIMIT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """A local port (0: any) and the pod's."""

    local: int
    remote: int


def parse(word: str) -> Mapping:
    """Read [LOCAL:]PORT; `:PORT` takes any free local port. Raises BadParameter."""
    local, colon, remote = word.rpartition(":")
    try:
        ports = Mapping(local=int(local or 0) if colon else int(remote), remote=int(remote))
    except ValueError:
        raise click.BadParameter(f"{word!r} is not [LOCAL:]PORT") from None
    if not 0 < ports.remote < 1 << 16 or not 0 <= ports.local < 1 << 16:
        raise click.BadParameter(f"{word!r}: a port is a number from 1 to 65535")
    return ports


def run(url: str, mappings: list[Mapping], address: str) -> None:
    """Forward until interrupted; raise ClientError when the connection to the daemon is lost."""
    try:
        asyncio.run(_run(url, mappings, address))
    except WherryError as error:
        raise ClientError(str(error)) from error


async def _run(url: str, mappings: list[Mapping], address: str) -> None:
    session = await PortForward.open(url)
    interrupted = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(session.mux.abort)
        for mapping in mappings:
            server = await _listen(session, mapping, address)
            stack.callback(server.close)
            host, port = server.sockets[0].getsockname()[:2]
            click.echo(f"Forwarding from {host}:{port} -> {mapping.remote}")
        stopping: asyncio.Future[Any] = asyncio.ensure_future(interrupted.wait())
        gone: asyncio.Future[Any] = session.mux.gone
        await asyncio.wait([stopping, gone], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if gone.done():
            raise ClientError("the connection to the pod was lost")


async def _listen(session: PortForward, mapping: Mapping, address: str) -> asyncio.Server:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _forward(session, mapping.remote, reader, writer)
        except (ConnectionGone, OSError) as error:
            click.echo(f"port {mapping.remote}: {error}", err=True)
        finally:
            writer.close()

    try:
        return await asyncio.start_server(accept, address, mapping.local)
    except OSError as error:
        raise ClientError(f"{address}:{mapping.local} cannot be listened on: {error.strerror}") from error


async def _forward(session: PortForward, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    data, error = session.connect(port)
    upward = asyncio.ensure_future(_up(reader, data))
    try:
        while chunk := await data.read():
            writer.write(chunk)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()
        problem = await error.read_rest(_MESSAGE_LIMIT)
        if problem:
            click.echo(problem.decode(errors="replace"), err=True)
        else:
            await upward
    finally:
        upward.cancel()
        await asyncio.gather(upward, return_exceptions=True)
        data.reset()


async def _up(reader: asyncio.StreamReader, data: Stream) -> None:
    while chunk := await reader.read(_READ_SIZE):
        await data.write(chunk)
    data.finish()
