"""One container of the pod: from its creation through the end of its init to its removal."""

from __future__ import annotations

import contextlib
import os
import time

from runtime import jsonlite
from runtime.kernel import pidfd
from shim.errors import AlreadyExists, FailedPrecondition, Internal, NotFound, WherryError
from shim.monitor.console import ConsoleSocket
from shim.monitor.oom import OomWatch
from shim.monitor.protocol import (
    AttachRequest,
    ContainerCreate,
    Exited,
    ExitRecord,
    LogLost,
    MonitorContainer,
    Oom,
    StartFailed,
    decode,
    encode,
)
from shim.monitor.stdio import Stdio
from shim.reactor import READ, Expired, Future

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shim.monitor.exits import ExitStore
    from shim.monitor.keeper import Rest
    from shim.monitor.oci_runtime import OciRuntime
    from shim.monitor.rest import Luggage
    from shim.reactor import Reactor

LOST_EXIT_CODE = 255
"""Exit code of a container that was not our child, so that nobody could wait for it."""
_KILL_ALL_SECONDS = 10.0
_SIGKILL = 9
_FULL = (28, 122)
"""ENOSPC and EDQUOT, which are told as they are."""


class Surroundings:
    """What a container needs of its monitor."""

    __slots__ = ("emit", "exits", "reactor", "report", "scratch")

    def __init__(
        self, reactor: Reactor, exits: ExitStore, scratch: str, emit: Callable[[Exited | Oom | LogLost], None],
        report: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.reactor = reactor
        self.exits = exits
        self.scratch = scratch
        self.emit = emit
        self.report = report


class Container:
    """A container and everything the monitor holds for it."""

    def __init__(self, around: Surroundings, runtime: OciRuntime, request: ContainerCreate) -> None:
        self._around = around
        self.runtime = runtime
        self.request = request
        self.status = "creating"
        self.pid = 0
        self.started_at_ns = 0
        self.exit: ExitRecord | None = None
        self.ended: Future[None] = Future()
        self.stdio: Stdio | None = None
        self._oom: OomWatch | None = None
        self._failure: StartFailed | None = None
        self._pid_namespace = True
        self._pidfd = -1
        self._is_child = True

    @property
    def reactor(self) -> Reactor:
        """The monitor's loop."""
        return self._around.reactor

    def describe(self) -> MonitorContainer:
        """Give what a client is told."""
        log = self.stdio.log if self.stdio else None
        return MonitorContainer(
            id=self.request.container_id,
            pid=self.pid,
            status=self.status,
            started_at_ns=self.started_at_ns,
            exit=self.exit,
            log_lost_bytes=log.lost_bytes if log else 0,
        )

    async def create(self) -> int:
        """Make it wait at its gate and give init's pid; what was made is undone when it fails."""
        request, around = self.request, self._around
        self._pid_namespace = bool(request.alone) or has_own_pid_namespace(request.bundle)
        try:
            self.stdio = self._streams()
            self.stdio.open(request.log_path, request.log_directory)
        except OSError as error:
            if error.filename != request.log_path or error.errno in _FULL:
                raise
            reason = (error.strerror or "").lower()
            raise FailedPrecondition(f"log {request.log_path} of the container cannot be opened: {reason}") from error
        if self.stdio.log is not None:
            self.stdio.log.on_loss = self._log_lost
        console: ConsoleSocket | None = None
        try:
            with around.reactor.children.collecting():
                if request.terminal:
                    console = ConsoleSocket(
                        around.reactor, around.scratch, request.container_id[:12], listening=bool(request.handler)
                    )
                pid = await self.runtime.create(request, self.stdio.theirs, console)
                self._adopt(pid)
            if console is not None:
                self.stdio.adopt_terminal(await console.receive())
            self.stdio.start()
        except BaseException:
            if self.pid:
                with contextlib.suppress(WherryError):
                    await self.runtime.delete(request)
            self.close()
            raise
        finally:
            if console is not None:
                console.close()
        return self.pid

    def _adopt(self, pid: int) -> None:
        self.pid = pid
        self.status = "created"
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            self._pidfd = os.pidfd_open(pid)
        self._watch_memory().watch(pid)
        self._around.exits.remember(self.request, pid, self.started_at_ns)
        self._await_child()

    def _watch_memory(self) -> OomWatch:
        self._oom = OomWatch(self._around.reactor, self._oomed)
        return self._oom

    def _await_child(self) -> None:
        ended = self._around.reactor.children.expect(self.pid)
        ended.on_done(lambda: self._begin_end(ended.result()))

    def _streams(self) -> Stdio:
        order = self.request
        return Stdio(self.reactor, terminal=order.terminal, stdin=order.stdin, stdin_once=order.stdin_once)

    def _begin_end(self, status: int) -> None:
        self._around.reactor.spawn(self._init_ended(status))

    def readopt(self, pid: int, started_at_ns: int) -> None:
        """Watch a container that an earlier monitor of this pod left: it is no child, only its end can be seen."""
        self.pid, self.status, self.started_at_ns = pid, "running" if started_at_ns else "created", started_at_ns
        self._watch_memory().watch(pid)
        self._pidfd = os.pidfd_open(pid)
        self._await_stranger()

    def _await_stranger(self) -> None:
        self._is_child = False

        def ended(_events: int) -> None:
            self._around.reactor.unwatch(self._pidfd)
            self._begin_end(LOST_EXIT_CODE)

        self._around.reactor.watch(self._pidfd, READ, ended)

    def _oomed(self, count: int) -> None:
        self._around.emit(Oom(container_id=self.request.container_id, count=count))

    def _log_lost(self, reason: str) -> None:
        self._around.report(f"log of container {self.request.container_id} is losing lines: {reason}")
        self._around.emit(LogLost(container_id=self.request.container_id, reason=reason))

    async def start(self) -> int:
        """Open the gate; give the time of the start. StartFailed leaves an exit record behind."""
        if self.status != "created":
            raise FailedPrecondition(
                f"container {self.request.container_id} is {self.status}; only a created one can be started"
            )
        self.started_at_ns = time.time_ns()
        self.status = "running"
        try:
            if not self.request.checkpoint:  # what has been restored runs already
                await self.runtime.start(self.request.container_id)
        except StartFailed as error:
            self._failure = error
            await self._end_of_failed_start()
            raise
        self._around.exits.remember(self.request, self.pid, self.started_at_ns)
        return self.started_at_ns

    async def _end_of_failed_start(self) -> None:
        """Wait for init's end, so that its record is there when the caller learns of the failure."""
        with contextlib.suppress(WherryError):
            await self.runtime.kill(self.request.container_id, _SIGKILL, all_processes=False)
        await self.ended

    async def _init_ended(self, status: int) -> None:
        now = time.time_ns()
        if not self._pid_namespace:
            await self._kill_rest()
        if self.stdio is not None:
            self.stdio.drain()
        oomed = self._oom is not None and self._oom.count() > 0 and status != 0
        failure = self._failure
        self.exit = ExitRecord(
            id=self.request.container_id,
            pid=self.pid,
            exit_code=failure.exit_code if failure else status,
            exited_at_ns=now,
            oom_killed=oomed,
            started_at_ns=self.started_at_ns,
            reason=failure.reason if failure else "",
            message=failure.message if failure else "",
        )
        self.status = "stopped"
        try:
            self._around.exits.save(self.exit)
        except OSError as error:
            self._around.report(f"exit record of container {self.request.container_id} was not written: {error}")
        self.ended.set(None)
        self._around.emit(
            Exited(
                container_id=self.exit.id,
                pid=self.pid,
                exit_code=self.exit.exit_code,
                signal=status - 128 if status > 128 and not failure and status != LOST_EXIT_CODE else 0,
                oom_killed=oomed,
                exited_at_ns=now,
            )
        )

    async def _kill_rest(self) -> None:
        """Kill what survives init when no PID namespace of its own did that; a failure must not hold up the end."""
        killing = self._around.reactor.spawn(self.runtime.kill(self.request.container_id, _SIGKILL, all_processes=True))
        try:
            await self._around.reactor.within(_KILL_ALL_SECONDS, killing)
        except Exception as error:  # noqa: BLE001 - whatever it is, init has ended and that has to be told
            self._around.report(f"processes left by container {self.request.container_id}: {error}")

    async def kill(self, signal: int, *, all_processes: bool) -> None:
        """Signal init or all; a container that has ended is no error."""
        if self.status == "stopped" and not all_processes:
            return
        if self.status == "creating":
            raise FailedPrecondition(f"container {self.request.container_id} is still being created")
        alone = not all_processes or (signal == _SIGKILL and self._pid_namespace)  # the kernel kills the rest with init
        if alone and not self.request.handler:
            if self._pidfd >= 0:  # our own child: no runtime is needed, and no other process can be meant
                pidfd.send_signal(self._pidfd, signal)
            if not all_processes or not self.runtime.is_frozen():
                return
        with contextlib.suppress(NotFound):
            await self.runtime.kill(self.request.container_id, signal, all_processes=all_processes)

    async def delete(self) -> None:
        """Kill what runs, wait for its end, remove everything of it."""
        await self.runtime.delete(self.request, ended=self.status == "stopped" and self._pid_namespace)
        if self.pid:
            try:
                await self._around.reactor.within(_KILL_ALL_SECONDS, self.ended)
            except Expired:
                text = f"process {self.pid}, init of container {self.request.container_id}, does not end although it was killed"
                raise Internal(text) from None
        self.close()
        self._around.exits.forget(self.request.container_id)

    def rest(self, luggage: Luggage) -> dict[str, Any] | None:
        """Hand everything over to the keeper; None while something is under way."""
        settled = self.status in ("created", "running") or self.ended.done
        stdio = None if self.stdio is None else self.stdio.rest(luggage)
        if not settled or (stdio is None and self.stdio is not None) or (self._failure is not None and self.exit is None):
            return None
        if self.exit is None and self._is_child:
            luggage.children.append(self.pid)
        return {
            "request": encode(self.request),
            "status": self.status,
            "pid": self.pid,
            "started_at_ns": self.started_at_ns,
            "exit": encode(self.exit),
            "pid_namespace": self._pid_namespace,
            "child": self._is_child,
            "pidfd": luggage.add(self._pidfd, 0 if self._is_child or self.exit is not None else READ),
            "oom": None if self._oom is None else self._oom.rest(luggage),
            "stdio": stdio,
            "runtime": self.runtime.rest(),
        }

    def wake(self, left: dict[str, Any], rest: Rest) -> None:
        """Take over what an earlier monitor of this pod left when it went to rest."""
        self.status, self.pid, self.started_at_ns = left["status"], left["pid"], left["started_at_ns"]
        self.exit = None if left["exit"] is None else decode(ExitRecord, left["exit"])
        self._pid_namespace, self._is_child = left["pid_namespace"], left["child"]
        self._pidfd = rest.fd(left["pidfd"])
        self.runtime.wake(left["runtime"])
        if left["oom"] is not None:
            self._watch_memory().wake(left["oom"], rest)
        if left["stdio"] is not None:
            self.stdio = self._streams()
            self.stdio.wake(left["stdio"], rest, self.request.log_path, self.request.log_directory)
            if self.stdio.log is not None:
                self.stdio.log.on_loss = self._log_lost
                if self.stdio.log.losing:
                    self._log_lost(f"{self.request.log_path}: it could not be written")
        if self.exit is not None:
            self.ended.set(None)
        elif self._is_child:
            self._await_child()
        else:
            self._await_stranger()

    def close(self) -> None:
        """Close what is held; a second call does nothing."""
        if self._oom is not None:
            self._oom.close()
        if self._pidfd >= 0:
            self._around.reactor.unwatch(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self.stdio is not None:
            self.stdio.close()

    def attach(self, request: AttachRequest, fds: list[int]) -> None:
        """Join a client's pipes to the container's streams; those taken are removed from `fds`."""
        if self.stdio is None:
            text = f"container {request.container_id} belonged to a monitor that died, and its streams with it"
            raise FailedPrecondition(f"{text}; restart the container to attach to it")
        if self.status not in ("created", "running"):
            raise FailedPrecondition(f"container {request.container_id} is {self.status}, not running")
        for name in ("stdin", "stdout", "stderr"):
            if getattr(request, name) and fds:
                self.stdio.attach(name, fds.pop(0))

    def reopen_log(self) -> None:
        """Go on in a new file at the log's path."""
        if self.stdio is None or self.stdio.log is None:
            raise FailedPrecondition(f"container {self.request.container_id} has no log")
        try:
            self.stdio.log.reopen()
        except OSError as error:
            raise FailedPrecondition(f"log {error.filename} cannot be reopened: {(error.strerror or '').lower()}") from error


def has_own_pid_namespace(bundle: str) -> bool:
    """Tell whether config.json asks for a new PID namespace: then the kernel kills all when init ends (pid_namespaces(7))."""
    try:
        with open(os.path.join(bundle, "config.json"), "rb") as file:
            namespaces = jsonlite.loads(file.read())["linux"]["namespaces"]
        return any(entry["type"] == "pid" and not entry.get("path") for entry in namespaces)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def still_lives(pid: int, start: int) -> bool:
    """Tell whether the process `pid` that started at `start` (clock ticks, proc(5)) has not ended."""
    handle = pidfd.open_process(pid, start)
    if handle is None:
        return False
    os.close(handle)
    return True


def check_new(known: dict[str, Container], request: ContainerCreate) -> None:
    """Raise AlreadyExists for an id that is taken."""
    if request.container_id in known:
        raise AlreadyExists(f"container {request.container_id} exists already in this pod")
