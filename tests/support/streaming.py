"""What the streaming tests share: a running container, and clients for its URLs."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from shim.gen.runtime.v1 import api_pb2
from shim.streaming.dial import PortForward, RemoteCommand
from tests.support.daemon import BUSYBOX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.cri import PodMaker
    from tests.support.daemon import Endpoint


def run_container(
    endpoint: Endpoint, pods: PodMaker, *command: str, host_network: bool = False, **fields: Any
) -> tuple[str, str]:
    """Run a pod with one container and give both ids."""
    config = pods.pod(host_network=host_network)
    pod = endpoint.cri.run_pod(config)
    modes = api_pb2.NamespaceOption(
        network=api_pb2.NODE if host_network else api_pb2.POD, pid=api_pb2.CONTAINER, ipc=api_pb2.POD
    )
    wanted = pods.container(BUSYBOX, command or ("sleep", "1000"), **fields)
    wanted.linux.security_context.namespace_options.CopyFrom(modes)
    container = endpoint.cri.create(pod, wanted, config)
    endpoint.cri.start(container)
    return pod, container


def exec_url(endpoint: Endpoint, container: str, *command: str, **wanted: bool) -> str:
    """Ask for an exec; standard output and, without a terminal, standard error unless `wanted` says otherwise."""
    fields = {"stdout": True, "stderr": not wanted.get("tty", False)} | wanted
    request = api_pb2.ExecRequest(container_id=container, cmd=command, **fields)
    return str(endpoint.cri.runtime.Exec(request, timeout=10).url)


def attach_url(endpoint: Endpoint, container: str, **wanted: bool) -> str:
    """Ask for an attach, likewise."""
    fields = {"stdout": True, "stderr": not wanted.get("tty", False)} | wanted
    request = api_pb2.AttachRequest(container_id=container, **fields)
    return str(endpoint.cri.runtime.Attach(request, timeout=10).url)


@asynccontextmanager
async def command(url: str, *names: str, tty: bool = False) -> AsyncIterator[RemoteCommand]:
    """Open the streams of an exec or attach."""
    opened = await RemoteCommand.open(url, *names, tty=tty)
    try:
        await opened.accepted()
        yield opened
    finally:
        await opened.close()


@asynccontextmanager
async def forwarding(endpoint: Endpoint, pod: str, *ports: int) -> AsyncIterator[PortForward]:
    """Open a port-forward session."""
    request = api_pb2.PortForwardRequest(pod_sandbox_id=pod, port=ports)
    session = await PortForward.open(str(endpoint.cri.runtime.PortForward(request, timeout=10).url))
    try:
        yield session
    finally:
        session.mux.abort()


async def status_of(opened: RemoteCommand) -> dict[str, Any]:
    """Give the status object of the error stream."""
    decoded = json.loads(await opened["error"].read_rest(65536))
    assert isinstance(decoded, dict)
    return decoded


def failed_with(status: dict[str, Any]) -> int:
    """Give the exit code that a status of failure tells."""
    assert status["reason"] == "NonZeroExitCode"
    (cause,) = [cause for cause in status["details"]["causes"] if cause["reason"] == "ExitCode"]
    return int(cause["message"])


async def count(stream: Any) -> int:
    """Read to the end and give the number of bytes."""
    total = 0
    while data := await stream.read():
        total += len(data)
    return total


async def pour(stream: Any, size: int, chunk: int = 65536) -> None:
    """Write so many zero bytes, and the end."""
    zeros = bytes(chunk)
    while size:
        await stream.write(zeros[: min(size, chunk)])
        size -= min(size, chunk)
    stream.finish()


def memory(pid: int) -> int:
    """Give the resident bytes of a process that are its own (proc_pid_smaps(5))."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
        lines = [line.split() for line in rollup if line.startswith(("Private_Dirty", "Private_Clean"))]
    return sum(int(line[1]) for line in lines) * 1024
