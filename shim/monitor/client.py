"""wherryd's side of a monitor's socket (see protocol.py). Asyncio; several clients may be connected to one monitor."""

from __future__ import annotations

import asyncio
import base64
import os
from collections import deque
from typing import TYPE_CHECKING, Any

from shim import wire
from shim.errors import Unavailable, WherryError
from shim.monitor.protocol import (
    EVENTS,
    VERSIONS,
    AttachRequest,
    CheckpointRequest,
    ContainerCreate,
    ExecRequest,
    ExecResult,
    Exited,
    LogLost,
    MonitorContainer,
    NamespaceRequest,
    Oom,
    PodNamespaces,
    StartFailed,
    decode,
    encode,
)
from shim.wire_client import WireClient

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

Event = Exited | Oom | LogLost


class EventStream:
    """The events of a monitor, in order; iteration ends with the link."""

    def __init__(self) -> None:
        self._kept: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._ended = False

    def put(self, event: Event) -> None:
        """Append an event."""
        self._kept.append(event)
        self._arrived.set()

    def end(self) -> None:
        """Let iterations end once what is kept was taken."""
        self._ended = True
        self._arrived.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._kept:
            if self._ended:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._kept.popleft()


class MonitorClient:
    """A link to one pod's monitor. Methods raise shim errors as the monitor meant them, Unavailable when it is gone."""

    def __init__(self, link: WireClient) -> None:
        self._link = link
        self.pid = 0
        self.pod_id = ""
        self.events = EventStream()
        self.closed = link.closed
        link.on_event = self._event
        link.closed.add_done_callback(lambda _future: self.events.end())

    @classmethod
    async def connect(cls, socket_path: str) -> MonitorClient:
        """Connect and agree on a version; raise Unavailable when nobody listens there."""
        try:
            sock = wire.connect(socket_path)
        except OSError as error:
            raise Unavailable(f"monitor socket {socket_path}: {(error.strerror or '').lower()}") from error
        client = cls(WireClient(sock, f"the monitor at {socket_path}"))
        try:
            hello = await client._call("hello", versions=list(VERSIONS))
        except BaseException:
            await client.close()
            raise
        client.pid, client.pod_id = int(hello["pid"]), str(hello["pod_id"])
        return client

    def _event(self, message: dict[str, Any]) -> None:
        kind = EVENTS.get(str(message.get("event")))
        if kind is not None:  # a newer monitor may tell more than we know
            self.events.put(decode(kind, message))

    async def _call(self, op: str, **parameters: Any) -> dict[str, Any]:
        reply, fds = await self._link.request({"op": op, **parameters})
        for fd in fds:
            os.close(fd)
        return reply

    async def setup_pod(self, request: NamespaceRequest) -> PodNamespaces:
        """Make and pin the pod's namespaces; a failure leaves nothing."""
        return decode(PodNamespaces, await self._call("setup", **encode(request)))

    async def teardown_pod(self) -> None:
        """Kill and delete every container, remove the namespaces' pins; idempotent."""
        await self._call("teardown")

    async def create(self, request: ContainerCreate) -> int:
        """Create a container and give the pid of its init, which waits; a failure leaves nothing.

        StartFailed when another runtime finds already now that the user's program cannot be executed.
        """
        try:
            return int((await self._call("create", **encode(request)))["pid"])
        except WherryError as error:
            raise _typed(error) from error

    async def start(self, container_id: str) -> int:
        """Start it and give the time in nanoseconds since the epoch; StartFailed when it cannot be executed."""
        try:
            return int((await self._call("start", id=container_id))["started_at_ns"])
        except WherryError as error:
            raise _typed(error) from error

    async def kill(self, container_id: str, signal: int, *, all_processes: bool = False) -> None:
        """Signal init or all processes; one that has ended is no error. Raises NotFound for an unknown id."""
        await self._call("kill", id=container_id, signal=int(signal), all=all_processes)

    async def delete(self, container_id: str) -> None:
        """Kill it if it runs and remove all of it; idempotent."""
        await self._call("delete", id=container_id)

    async def update(self, container_id: str, resources: dict[str, Any]) -> None:
        """Apply other limits (linux.resources of the OCI); what is left out stays. Raises what the runtime says."""
        await self._call("update", id=container_id, resources=resources)

    async def checkpoint(self, request: CheckpointRequest) -> None:
        """Save containers at one moment; they run on, also when it fails. Raises what criu says."""
        await self._call("checkpoint", **encode(request))

    async def exec_sync(self, request: ExecRequest) -> ExecResult:
        """Run a command to its end. DeadlineExceeded when its time was over; cancelling kills the command."""

        def cancel(number: int) -> None:
            if not self._link.closed.done():
                self._link.post({"seq": 0, "op": "cancel", "target": number})

        try:
            reply, fds = await self._link.request({"op": "exec_sync", **encode(request)}, on_cancel=cancel)
        except WherryError as error:
            raise _typed(error) from error
        try:
            out, err = (_output(reply[name], fds) for name in ("stdout", "stderr"))
        finally:
            for fd in fds:
                os.close(fd)
        return ExecResult(exit_code=int(reply["exit_code"]), stdout=out, stderr=err)

    async def exec_stream(self, request: ExecRequest, stdio: Sequence[int]) -> tuple[str, int]:
        """Run a command with `stdio` (still the caller's) as its 0, 1 and 2; give its name and -1.

        With `terminal` in request.process and no descriptors it gets a terminal, and its master comes with the name.
        Raises StartFailed.
        """
        try:
            reply, fds = await self._link.request({"op": "exec_stream", **encode(request)}, stdio)
        except WherryError as error:
            raise _typed(error) from error
        return str(reply["exec"]), fds[0] if fds else -1

    async def exec_wait(self, name: str) -> int:
        """Wait for the end of a command that `exec_stream` started; give its exit code."""
        return int((await self._call("exec_wait", exec=name))["exit_code"])

    async def exec_kill(self, name: str) -> None:
        """Kill such a command with all its descendants."""
        await self._call("exec_kill", exec=name)

    async def attach(self, request: AttachRequest, pipes: Sequence[int]) -> None:
        """Join pipes (the monitor's ends, still the caller's) to the streams of a container, as `request` lists them."""
        await self._link.request({"op": "attach", **encode(request)}, pipes)

    async def reopen_log(self, container_id: str) -> None:
        """Go on in a new file at the log's path, after a rotation."""
        await self._call("reopen_log", id=container_id)

    async def resize(self, container_id: str, width: int, height: int) -> None:
        """Set the size of the container's terminal in columns and rows."""
        await self._call("resize", id=container_id, width=width, height=height)

    async def containers(self) -> list[MonitorContainer]:
        """Give every container of the pod with its state and exit record, for recovery."""
        return [decode(MonitorContainer, item) for item in (await self._call("list"))["containers"]]

    async def namespaces(self) -> PodNamespaces | None:
        """Give the pod's namespaces, None before `setup_pod` and after `teardown_pod`."""
        value = (await self._call("list"))["namespaces"]
        return None if value is None else decode(PodNamespaces, value)

    async def shutdown(self) -> None:
        """End the monitor; FailedPrecondition while the pod has containers or namespaces."""
        await self._call("shutdown")
        await asyncio.shield(self.closed)

    async def close(self) -> None:
        """Drop the link; the monitor goes on."""
        self._link.close()


def _output(value: dict[str, Any], fds: list[int]) -> bytes:
    if "inline" in value:
        return base64.b64decode(value["inline"])
    fd = fds.pop(0)
    try:
        return os.pread(fd, int(value["size"]), 0)
    finally:
        os.close(fd)


def _typed(error: WherryError) -> WherryError:
    if "exit_code" in error.details:
        return StartFailed(int(error.details["exit_code"]), str(error.details.get("reason", "")), str(error))
    return error
