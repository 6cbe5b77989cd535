"""PortForward: connections to what listens on a pod's loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING

from shim import wire
from shim.errors import FailedPrecondition, InvalidArgument, Unavailable
from shim.pod.status import get_pod
from shim.streaming.requests import PortForwardStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shim.pod.node import Node
    from shim.store.pods import Pod

CONNECT_SECONDS = 10.0
"""How long one address may take to answer; on a loopback it answers at once, or its backlog is full."""
_JOB_SECONDS = 30.0
_ADDRESSES = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def _ready_pod(node: Node, pod_id: str) -> Pod:
    pod = get_pod(node, pod_id)
    if not pod.ready:
        raise FailedPrecondition(f"pod {pod.id} is not ready: its network is gone")
    return pod


async def port_forward(node: Node, pod_id: str, ports: Sequence[int]) -> str:
    """Give the URL at which ports of a pod can be forwarded; raise NotFound, FailedPrecondition, InvalidArgument."""
    if not pod_id:
        raise InvalidArgument("pod_sandbox_id must not be empty")
    for port in ports:
        check_port(port)
    pod = _ready_pod(node, pod_id)
    return await node.streaming.url(PortForwardStream(pod_id=pod.id, ports=tuple(ports)))


def check_port(port: int) -> None:
    """Raise InvalidArgument for a number that is no TCP port."""
    if not 0 < port < 1 << 16:
        raise InvalidArgument(f"port {port} must be from 1 to 65535")


async def connect(node: Node, pod_id: str, port: int) -> socket.socket:
    """Connect to 127.0.0.1, else to ::1, inside the pod's network; raise Unavailable saying why neither answers."""
    check_port(port)
    pod = _ready_pod(node, pod_id)
    candidates = await _namespace_sockets(node, pod.meta.netns) if pod.meta.netns else _own_sockets()
    problems = []
    found: socket.socket | None = None
    try:
        for candidate in candidates:
            try:
                await _connect(candidate, port)
            except OSError as error:
                problems.append(f"{_ADDRESSES[candidate.family]}: {_why(error)}")
            else:
                found = candidate
                return candidate
    finally:
        for candidate in candidates:
            if candidate is not found:
                candidate.close()
    raise Unavailable(f"port {port} of pod {pod.id} cannot be connected to: {'; '.join(problems)}")


async def _connect(candidate: socket.socket, port: int) -> None:
    candidate.setblocking(False)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_SECONDS):
        await loop.sock_connect(candidate, (_ADDRESSES[socket.AddressFamily(candidate.family)], port))
    candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _why(error: OSError) -> str:
    return "no answer" if isinstance(error, TimeoutError) else (os.strerror(error.errno or 0)).lower()


def _own_sockets() -> list[socket.socket]:
    made = [socket.socket(socket.AF_INET, socket.SOCK_STREAM)]
    with contextlib.suppress(OSError):  # a kernel without IPv6
        made.append(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
    return made


async def _namespace_sockets(node: Node, netns: str) -> list[socket.socket]:
    ours, theirs = wire.pair()
    with ours:
        with theirs:
            await node.jobs.job("sockets", {"netns": netns, "count": 1}, fds=[theirs.fileno()], timeout=_JOB_SECONDS)
        _message, fds, _flags, _address = socket.recv_fds(ours, 1, 2, socket.MSG_DONTWAIT)
    return [socket.socket(fileno=fd) for fd in fds]
