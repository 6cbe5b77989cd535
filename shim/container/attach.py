"""Attach: a client joins the streams of a container's own process."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from shim.container.exec import check_streams, make_pipes
from shim.container.status import get_container
from shim.errors import FailedPrecondition
from shim.monitor.protocol import AttachRequest
from shim.store.containers import State
from shim.streaming.requests import AttachStream, ExecStream

if TYPE_CHECKING:
    from shim.container.exec import Pipes
    from shim.gen.runtime.v1 import api_pb2
    from shim.pod.node import Node
    from shim.store.containers import Container


async def attach_url(node: Node, request: api_pb2.AttachRequest) -> str:
    """Give the URL at which a client can attach, once; raise NotFound, FailedPrecondition, InvalidArgument."""
    check_streams(request)
    container = _attachable(node, request.container_id)
    return await node.streaming.url(
        AttachStream(
            container_id=container.id,
            stdin=request.stdin,
            stdout=request.stdout,
            stderr=request.stderr,
            tty=request.tty,
        )
    )


def _attachable(node: Node, container_id: str) -> Container:
    """Give a container that runs, or will: who attaches before the start misses nothing."""
    container = get_container(node, container_id)
    if container.state not in (State.CREATED, State.RUNNING):
        raise FailedPrecondition(f"container {container.id} is {container.state}, not running")
    return container


async def start_attach(node: Node, request: AttachStream) -> Attachment:
    """Join the container's streams; raise what keeps us from it."""
    container = _attachable(node, request.container_id)
    wanted = ExecStream(
        container_id=container.id,
        command=(),
        stdin=request.stdin and container.config.stdin,
        stdout=request.stdout,
        stderr=request.stderr and not container.config.tty,
        tty=False,
    )
    order = AttachRequest(container_id=container.id, stdin=wanted.stdin, stdout=wanted.stdout, stderr=wanted.stderr)
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        pipes, stdio = make_pipes(wanted, ours, theirs)
        asked = [fd for fd, want in zip(stdio, (wanted.stdin, wanted.stdout, wanted.stderr), strict=True) if want]
        await node.monitors.get(container.pod_id).attach(order, asked)
        ours.pop_all()
    return Attachment(node, container, pipes)


class Attachment:
    """A container one is attached to (see shim.streaming.remotecommand.Process)."""

    def __init__(self, node: Node, container: Container, pipes: Pipes) -> None:
        self._node = node
        self._container = container
        self._pipes = pipes
        self._left = asyncio.Event()
        self.stdin, self.stdout, self.stderr = pipes.stdin, pipes.stdout, pipes.stderr

    async def wait(self) -> int | None:
        """Wait until the container has exited, or the client's part is over."""
        exited = self._node.exit_event(self._container.id)
        waits = [asyncio.ensure_future(event.wait()) for event in (exited, self._left)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return None

    async def stdin_ended(self) -> None:
        """End the container's input when it was made for one client; otherwise this client has said all it wanted."""
        if self.stdin is not None:
            self.stdin.close()
        config = self._container.config
        if config.stdin_once and not config.tty:
            return
        self._left.set()

    async def resize(self, width: int, height: int) -> None:
        """Set the size of the container's terminal."""
        if self._container.config.tty:
            await self._node.monitors.get(self._container.pod_id).resize(self._container.id, width, height)

    async def close(self) -> None:
        """Detach; the container goes on."""
        self._pipes.close()
