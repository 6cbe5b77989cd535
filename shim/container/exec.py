"""Exec: a command in a container, whose streams a client gets."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from typing import TYPE_CHECKING

from shim.container.status import get_container
from shim.errors import FailedPrecondition, InvalidArgument, WherryError
from shim.monitor.protocol import ExecRequest
from shim.store.containers import State
from shim.streaming.pipes import FdReader, FdWriter
from shim.streaming.requests import ExecStream

if TYPE_CHECKING:
    from shim.gen.runtime.v1 import api_pb2
    from shim.monitor.client import MonitorClient
    from shim.pod.node import Node

LOST_SECONDS = 10.0
"""Grace of a command whose client has gone, after its pipes or its terminal; then it is killed with its descendants."""
PIPE_SIZE = 256 * 1024
_LFLAG = 3


def check_streams(request: api_pb2.ExecRequest | api_pb2.AttachRequest) -> None:
    """Raise InvalidArgument for streams that cannot be had together."""
    if not request.container_id:
        raise InvalidArgument("container_id must not be empty")
    if request.tty and request.stderr:
        raise InvalidArgument("tty and stderr cannot both be true: a terminal has one output")
    if not (request.stdin or request.stdout or request.stderr):
        raise InvalidArgument("one of stdin, stdout or stderr must be true")


async def exec_url(node: Node, request: api_pb2.ExecRequest) -> str:
    """Give the URL at which the command can be run, once; raise NotFound, FailedPrecondition, InvalidArgument."""
    check_streams(request)
    if not request.cmd:
        raise InvalidArgument("cmd must not be empty")
    container = get_container(node, request.container_id)
    if container.state is not State.RUNNING:
        raise FailedPrecondition(f"container {container.id} is {container.state}, not running")
    return await node.streaming.url(
        ExecStream(
            container_id=container.id,
            command=tuple(request.cmd),
            stdin=request.stdin,
            stdout=request.stdout,
            stderr=request.stderr,
            tty=request.tty,
        )
    )


async def start_exec(node: Node, request: ExecStream) -> ExecProcess:
    """Run the command; raise what keeps it from running."""
    container = get_container(node, request.container_id)
    if container.state is not State.RUNNING:
        raise FailedPrecondition(f"container {container.id} is {container.state}, not running")
    monitor = node.monitors.get(container.pod_id)
    order = ExecRequest(
        container_id=container.id,
        process={
            "args": list(request.command),
            "terminal": request.tty,
            "env": ["TERM=xterm"] if request.tty else [],
        },
    )
    if request.tty:
        name, master = await monitor.exec_stream(order, [])
        return ExecProcess(monitor, name, Pipes(stdin=FdWriter(os.dup(master)), stdout=FdReader(master)), master)
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        pipes, stdio = make_pipes(request, ours, theirs)
        name, _none = await monitor.exec_stream(order, stdio)
        ours.pop_all()
    return ExecProcess(monitor, name, pipes)


class Pipes:
    """Our ends of a process's streams."""

    def __init__(
        self, *, stdin: FdWriter | None = None, stdout: FdReader | None = None, stderr: FdReader | None = None
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr

    def close(self) -> None:
        """Close them all."""
        for one in (self.stdin, self.stdout, self.stderr):
            if one is not None:
                one.close()


def make_pipes(
    request: ExecStream, ours: contextlib.ExitStack, theirs: contextlib.ExitStack
) -> tuple[Pipes, tuple[int, int, int]]:
    """Make a pipe for each stream that is asked for, /dev/null for the others; the stacks close either side."""

    def null() -> int:
        fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        theirs.callback(os.close, fd)
        return fd

    def pipe(*, inward: bool) -> tuple[int, int]:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # over the user's limit a pipe keeps its 64 KiB
            fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        mine, other = (writer, reader) if inward else (reader, writer)
        theirs.callback(os.close, other)
        return mine, other

    pipes = Pipes()
    ours.callback(pipes.close)
    fds = [-1, -1, -1]
    if request.stdin:
        mine, fds[0] = pipe(inward=True)
        pipes.stdin = FdWriter(mine)
    if request.stdout:
        mine, fds[1] = pipe(inward=False)
        pipes.stdout = FdReader(mine)
    if request.stderr:
        mine, fds[2] = pipe(inward=False)
        pipes.stderr = FdReader(mine)
    first, second, third = (fd if fd >= 0 else null() for fd in fds)
    return pipes, (first, second, third)


class ExecProcess:
    """A running command (see shim.streaming.remotecommand.Process)."""

    def __init__(self, monitor: MonitorClient, name: str, pipes: Pipes, terminal: int = -1) -> None:
        self._monitor = monitor
        self._name = name
        self._pipes = pipes
        self._terminal = terminal
        self._ended = False
        self.stdin, self.stdout, self.stderr = pipes.stdin, pipes.stdout, pipes.stderr

    async def wait(self) -> int | None:
        """Wait for its end and give the exit code."""
        code = await self._monitor.exec_wait(self._name)
        self._ended = True
        return code

    async def stdin_ended(self) -> None:
        """Let the command see the end of its input: on a terminal that reads lines, by the end-of-file character."""
        if self.stdin is None:
            return
        if self._terminal < 0:
            self.stdin.close()
            return
        attributes = termios.tcgetattr(self._terminal)
        if attributes[_LFLAG] & termios.ICANON:
            with contextlib.suppress(BrokenPipeError):
                await self.stdin.write(bytes(attributes[6][termios.VEOF]))

    async def resize(self, width: int, height: int) -> None:
        """Set the terminal's size in columns and rows (tty_ioctl(4))."""
        if self._terminal >= 0 and self.stdout is not None and self.stdout.open:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    async def close(self) -> None:
        """Close the streams; a command that goes on without its client is given its grace and then killed."""
        self._pipes.close()
        if self._ended:
            return
        with contextlib.suppress(WherryError):  # the monitor does the same when we are gone
            try:
                async with asyncio.timeout(LOST_SECONDS):
                    await self._monitor.exec_wait(self._name)
            except TimeoutError:
                await self._monitor.exec_kill(self._name)
