"""exec_stream: processes beside a container's own whose streams belong to somebody else.

The descriptors go from the client straight to the process, so that no byte of theirs passes through the monitor; what
stays here is the process itself: waiting for it and, when its client is lost, ending it.
"""

from __future__ import annotations

import contextlib
import os

from shim.errors import FailedPrecondition, InvalidArgument, NotFound, WherryError
from shim.monitor.console import ConsoleSocket
from shim.reactor import Cancelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shim.monitor.container import Container
    from shim.monitor.protocol import ExecRequest
    from shim.reactor import Future, Reactor

LOST_SECONDS = 10.0
"""Grace of a process whose client's link ended, after its pipes or its terminal did: then it is killed with its tree."""


class _Session:
    """A running process."""

    __slots__ = ("container", "ended", "group", "pid")

    def __init__(self, container: Container, group: str, pid: int, ended: Future[int]) -> None:
        self.container = container
        self.group = group
        self.pid = pid
        self.ended = ended


class ExecSessions:
    """The streamed processes of a monitor."""

    def __init__(self, reactor: Reactor, scratch: str, report: Callable[[str], None]) -> None:
        self._reactor = reactor
        self._scratch = scratch
        self._report = report
        self._sessions: dict[str, _Session] = {}
        self.count = 0

    @property
    def idle(self) -> bool:
        """Whether none runs or is still to be waited for."""
        return not self._sessions

    async def start(self, container: Container, request: ExecRequest, fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        """Run the process with `fds` as 0, 1 and 2, or on a terminal of its own; give the reply with its descriptors.

        Raises StartFailed, FailedPrecondition when the container does not run.
        """
        terminal = request.process.get("terminal") is True
        if len(fds) != (0 if terminal else 3):
            raise InvalidArgument("exec_stream takes three descriptors, or none for a terminal")
        if container.status != "running":
            raise FailedPrecondition(f"container {request.container_id} is {container.status}, not running")
        self.count += 1
        name = f"stream-{self.count}"
        master: list[int] = []
        if terminal:
            session = await self._start_on_terminal(container, request, name, master)
        else:
            session = await self._start(container, request, (fds[0], fds[1], fds[2]), name, None)
        self._sessions[name] = session
        session.ended.on_done(lambda: container.runtime.end_exec(name))
        return {"exec": name}, master

    async def _start_on_terminal(self, container: Container, request: ExecRequest, name: str, master: list[int]) -> _Session:
        console = ConsoleSocket(
            self._reactor,
            self._scratch,
            f"{request.container_id[:12]}.{self.count}",
            listening=bool(container.request.handler),
        )
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            session = await self._start(container, request, (null, null, null), name, console)
            try:
                master.append(await console.receive())
            except BaseException:
                await self._kill(session)
                raise
            return session
        finally:
            os.close(null)
            console.close()

    async def _start(
        self,
        container: Container,
        request: ExecRequest,
        stdio: tuple[int, int, int],
        name: str,
        console: ConsoleSocket | None,
    ) -> _Session:
        with self._reactor.children.collecting():
            pid = await container.runtime.exec(request, container.request.bundle, stdio, name, console)
            return _Session(container, name, pid, self._reactor.children.expect(pid))

    def _find(self, name: object) -> _Session:
        session = self._sessions.get(name) if isinstance(name, str) else None
        if session is None:
            raise NotFound(f"there is no process {name!r}; it may have been waited for already")
        return session

    async def wait(self, name: object) -> dict[str, Any]:
        """Wait for the end of a process and forget it."""
        session = self._find(name)
        status = await session.ended
        self._sessions.pop(session.group, None)
        return {"exit_code": status}

    async def kill(self, name: object) -> dict[str, Any]:
        """Kill a process with its descendants; one that has ended is no error."""
        await self._kill(self._find(name))
        return {}

    async def _kill(self, session: _Session) -> None:
        if not session.ended.done:
            await session.container.runtime.kill_exec(session.container.request.container_id, session.pid, session.group)

    def abandon(self, name: str) -> None:
        """Give a process whose client is lost its grace, then kill it."""
        session = self._sessions.pop(name, None)
        if session is not None and not session.ended.done:
            timer = self._reactor.at(LOST_SECONDS, lambda: self._begin_kill(session))
            session.ended.on_done(timer.cancel)

    def _begin_kill(self, session: _Session) -> None:
        self._reactor.spawn(self._kill_quietly(session))

    async def _kill_quietly(self, session: _Session) -> None:
        with contextlib.suppress(Cancelled):
            try:
                await self._kill(session)
            except WherryError as error:
                self._report(f"{session.group} of container {session.container.request.container_id} lives on: {error}")
