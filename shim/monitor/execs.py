"""exec_sync: run a process in a container, collect its output within bounds, and leave nothing of it after a timeout."""

from __future__ import annotations

import binascii
import contextlib
import os
import time

from shim.errors import DeadlineExceeded, FailedPrecondition
from shim.monitor.protocol import INLINE_OUTPUT, OUTPUT_LIMIT
from shim.monitor.stdio import Stream
from shim.reactor import Cancelled, Expired, Future

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shim.monitor.container import Container
    from shim.monitor.protocol import ExecRequest
    from shim.reactor import Reactor

DRAIN_SECONDS = 1.0
"""How long output is awaited after the process ended: a grandchild may keep the pipe open for ever."""


class Capture:
    """The output of one stream: small in memory, larger in a memfd, at most OUTPUT_LIMIT; the rest is dropped."""

    __slots__ = ("_memfd", "_parts", "size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._memfd = -1
        self.size = 0

    def feed(self, chunk: bytes) -> None:
        """Keep what fits."""
        chunk = chunk[: OUTPUT_LIMIT - self.size]
        if not chunk:
            return
        self.size += len(chunk)
        if self._memfd < 0 and self.size <= INLINE_OUTPUT:
            self._parts.append(chunk)
            return
        if self._memfd < 0:
            self._memfd = os.memfd_create("wherry-output", os.MFD_CLOEXEC)
            chunk = b"".join([*self._parts, chunk])
            self._parts.clear()
        view = memoryview(chunk)
        while view:
            view = view[os.write(self._memfd, view) :]

    def take(self, fds: list[int]) -> dict[str, Any]:
        """Give the output as part of a reply; a memfd is moved to `fds`."""
        if self._memfd < 0:
            return {"inline": binascii.b2a_base64(b"".join(self._parts), newline=False).decode()}
        fds.append(self._memfd)
        self._memfd = -1
        return {"size": self.size}

    def close(self) -> None:
        """Drop everything."""
        self._parts.clear()
        if self._memfd >= 0:
            os.close(self._memfd)
            self._memfd = -1


class _Output:
    """Both output pipes of one exec and what was read from them."""

    def __init__(self, reactor: Reactor) -> None:
        self.captures = (Capture(), Capture())
        self.ended: Future[None] = Future()
        self._streams: list[Stream] = []
        self.theirs = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)]
        for capture in self.captures:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            self.theirs.append(writer)
            stream = Stream(reactor, reader, capture.feed)
            stream.on_end = self._stream_ended
            self._streams.append(stream)

    def _stream_ended(self) -> None:
        if not any(stream.open for stream in self._streams):
            self.ended.set(None)

    def start(self) -> None:
        """Close the process's ends and begin to read."""
        for fd in self.theirs:
            os.close(fd)
        self.theirs.clear()
        for stream in self._streams:
            stream.start()

    def close(self) -> None:
        """Close all descriptors; what was captured stays."""
        for fd in self.theirs:
            os.close(fd)
        self.theirs.clear()
        for stream in self._streams:
            stream.drain()
            stream.close()


class Execs:
    """The exec sessions of a monitor."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self.count = 0

    async def run_sync(self, container: Container, request: ExecRequest) -> tuple[dict[str, Any], list[int]]:
        """Run to the end and give the reply with its descriptors.

        Raises DeadlineExceeded after request.timeout_s, when the whole tree has been killed; StartFailed.
        """
        if container.status != "running":
            raise FailedPrecondition(f"container {request.container_id} is {container.status}, not running")
        deadline = time.monotonic() + request.timeout_s if request.timeout_s > 0 else None
        self.count += 1
        group = f"exec-{self.count}"
        output = _Output(self._reactor)
        try:
            status = await self._run(container, request, output, (group, deadline))
            output.close()
            fds: list[int] = []
            out, err = (capture.take(fds) for capture in output.captures)
        finally:
            output.close()
            for capture in output.captures:
                capture.close()
        return {"exit_code": status, "stdout": out, "stderr": err}, fds

    async def _run(self, container: Container, request: ExecRequest, output: _Output, bounds: tuple[str, float | None]) -> int:
        group, deadline = bounds
        with self._reactor.children.collecting():
            first, second, third = output.theirs
            starting = self._reactor.spawn(
                container.runtime.exec(request, container.request.bundle, (first, second, third), group)
            )
            try:
                pid = await self._reactor.within(_left(deadline), starting)
            except (Expired, Cancelled) as error:
                starting.cancel()
                if isinstance(error, Expired):
                    raise _too_long(request) from None
                raise
            ended = self._reactor.children.expect(pid)
        output.start()
        try:
            status = await self._reactor.within(_left(deadline), ended)
        except (Expired, Cancelled) as error:
            await container.runtime.kill_exec(request.container_id, pid, group)
            await ended
            container.runtime.end_exec(group)
            if isinstance(error, Expired):
                raise _too_long(request) from None
            raise
        with contextlib.suppress(Expired):
            await self._reactor.within(DRAIN_SECONDS, output.ended)
        container.runtime.end_exec(group)
        return status


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _too_long(request: ExecRequest) -> DeadlineExceeded:
    command = " ".join(map(str, request.process.get("args", [])))[:200]
    return DeadlineExceeded(f"command {command!r} timed out after {request.timeout_s:g} s and was killed")
