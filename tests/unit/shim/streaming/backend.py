"""A streaming server on loopback with an echo behind it: real sockets and pipes, no container."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING

from shim.config import StreamingConfig
from shim.errors import Unavailable
from shim.streaming.pipes import FdReader, FdWriter
from shim.streaming.requests import ExecStream
from shim.streaming.server import StreamingServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shim.streaming.requests import AttachStream


class Echo:
    """A process that writes to stdout what it reads, `exit N` aside; with a command it writes that instead."""

    def __init__(self, request: ExecStream | AttachStream) -> None:
        to_read, to_write = os.pipe()
        self.request = request
        self.stdin: FdWriter | None = None
        self.stdout: FdReader | None = FdReader(to_read)
        self.stderr: FdReader | None = None
        self.sizes: list[tuple[int, int]] = []
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.closed = asyncio.Event()
        if request.stdin:
            self.stdin = FdWriter(to_write)
        else:
            os.write(to_write, " ".join(getattr(request, "command", ())).encode())
            os.close(to_write)
            self.code.set_result(0)

    async def wait(self) -> int | None:
        return await asyncio.shield(self.code)

    async def stdin_ended(self) -> None:
        assert self.stdin is not None
        self.stdin.close()
        if not self.code.done():
            self.code.set_result(3)

    async def resize(self, width: int, height: int) -> None:
        self.sizes.append((width, height))

    async def close(self) -> None:
        for one in (self.stdin, self.stdout):
            if one is not None:
                one.close()
        self.closed.set()


class Backend:
    """Echoes; `connect` reaches ports of this machine."""

    def __init__(self) -> None:
        self.processes: list[Echo] = []

    async def start_exec(self, request: ExecStream) -> Echo:
        if request.command[:1] == ("missing",):
            raise Unavailable("there is no such program")
        self.processes.append(Echo(request))
        return self.processes[-1]

    async def start_attach(self, request: AttachStream) -> Echo:
        self.processes.append(Echo(request))
        return self.processes[-1]

    async def connect(self, pod_id: str, port: int) -> socket.socket:
        del pod_id
        sock = socket.socket()
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except OSError as error:
            sock.close()
            raise Unavailable(f"nobody listens on {port}") from error
        return sock


@contextlib.asynccontextmanager
async def streaming(**settings: float) -> AsyncIterator[tuple[StreamingServer, Backend]]:
    """Give a server and its backend."""
    backend = Backend()
    server = StreamingServer(StreamingConfig(**settings), backend)  # type: ignore[arg-type] - the settings of one test
    try:
        yield server, backend
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def tcp_echo() -> AsyncIterator[int]:
    """Give the port of a server that sends back what it gets, and then closes."""

    handlers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.current_task()
        assert handler is not None
        handlers.add(handler)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if handlers:  # whoever forwards closes its connections when its client goes
            _done, left = await asyncio.wait(handlers, timeout=5)
            assert not left


Parts = tuple[StreamingServer, Backend]


def order(*command: str, stdin: bool = False, tty: bool = False) -> ExecStream:
    return ExecStream(container_id="c", command=command, stdin=stdin, stdout=True, stderr=False, tty=tty)
