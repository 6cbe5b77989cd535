"""The monitor itself: the process that stands beside a pod, and what it answers on its socket (see protocol.py)."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import time
from typing import TYPE_CHECKING, Any, NoReturn

from runtime.apply.cgroup import detect
from runtime.kernel.prctl import set_child_subreaper, set_dumpable
from shim import process, wire
from shim.errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented, WherryError
from shim.link import Link, close_all
from shim.monitor import pod, scope
from shim.monitor.checkpoint import save
from shim.monitor.container import Container, Surroundings, check_new, still_lives
from shim.monitor.execs import Execs
from shim.monitor.exits import ExitStore
from shim.monitor.external import ExternalRuntime
from shim.monitor.files import SOCKET, remove, write_json
from shim.monitor.internal import InternalRuntime
from shim.monitor.protocol import (
    EVENTS,
    VERSION,
    VERSIONS,
    AttachRequest,
    CheckpointRequest,
    ContainerCreate,
    ExecRequest,
    Exited,
    LogLost,
    NamespaceRequest,
    Oom,
    PodNamespaces,
    decode,
    encode,
)
from shim.monitor.sessions import ExecSessions
from shim.monitor.trouble import TroubleLog
from shim.reactor import READ, Cancelled, Reactor, Task

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from shim.monitor.runtimes import OciRuntime

    Reply = dict[str, Any] | tuple[dict[str, Any], list[int]]

_NAMES = {kind: name for name, kind in EVENTS.items()}
_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}\Z")
_SETUP_SECONDS = 30.0
_TEARDOWN_PARALLEL_SECONDS = 30.0


class Monitor:
    """The state of one pod's monitor and its operations."""

    def __init__(self, pod_id: str, state_dir: str, listener: socket.socket) -> None:
        self.pod_id = pod_id
        self.state_dir = state_dir
        self.trouble = TroubleLog(os.path.join(state_dir, "monitor.log"))
        self.reactor = Reactor(on_error=self.trouble.write)
        self.containers: dict[str, Container] = {}
        self._listener = listener
        self._sessions: set[Session] = set()
        self._namespaces: PodNamespaces | None = pod.load(state_dir)
        self._execs = Execs(self.reactor)
        self._home: tuple[str, ...] = ()
        """Where the monitor was before it went into its pod's scope."""
        scratch = os.path.join(state_dir, "scratch")
        os.makedirs(scratch, 0o700, exist_ok=True)
        self._scratch = scratch
        self._around = Surroundings(self.reactor, ExitStore(state_dir), scratch, self._emit, self.trouble.write)
        self.operations: dict[str, Callable[[dict[str, Any]], Awaitable[Reply]]] = {
            "setup": self._setup,
            "teardown": self._teardown,
            "create": self._create,
            "start": self._start,
            "kill": self._kill,
            "delete": self._delete,
            "update": self._update,
            "checkpoint": self._checkpoint,
            "exec_sync": self._exec_sync,
            "reopen_log": self._reopen_log,
            "resize": self._resize,
            "exec_wait": lambda message: self.sessions.wait(message.get("exec")),
            "exec_kill": lambda message: self.sessions.kill(message.get("exec")),
            "list": self._list,
            "shutdown": self._shutdown,
        }
        self.sessions = ExecSessions(self.reactor, scratch, self.trouble.write)
        self.streaming: dict[str, Callable[[dict[str, Any], list[int], Session], Awaitable[Reply]]] = {
            "attach": self._attach,
            "exec_stream": self._exec_stream,
        }
        self._recover()
        listener.setblocking(False)
        self.reactor.watch(listener.fileno(), READ, self._accept)

    def _recover(self) -> None:
        """Take over what an earlier monitor of this pod left behind when it died."""
        for request, pid, start, started_at_ns in self._around.exits.remembered():
            container = Container(self._around, self._runtime(request), request)
            self.containers[request.container_id] = container
            container.exit = self._around.exits.find(request.container_id)
            if container.exit is None and still_lives(pid, start):
                container.readopt(pid, started_at_ns)
                if not request.handler:  # it is frozen when the one who died was saving it
                    self.reactor.spawn(container.runtime.resume(request.container_id))
            else:
                container.status = "stopped"
                container.ended.set(None)

    def _accept(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            sock, _address = self._listener.accept()
            session = Session(self, sock)
            self._sessions.add(session)
            session.link.on_close = lambda: self._leave(session)

    def _leave(self, session: Session) -> None:
        self._sessions.discard(session)
        session.abandon()

    def _emit(self, event: Exited | Oom | LogLost) -> None:
        message = {"event": _NAMES[type(event)], **encode(event)}
        for session in list(self._sessions):
            if session.greeted:
                session.link.send(message)

    def _runtime(self, request: ContainerCreate) -> OciRuntime:
        if not request.handler:
            return InternalRuntime(self.reactor, request.state_root)
        return ExternalRuntime(self.reactor, request, self._scratch)

    def _find(self, message: dict[str, Any]) -> Container:
        container_id = message.get("id", message.get("container_id"))
        container = self.containers.get(container_id) if isinstance(container_id, str) else None
        if container is None:
            raise NotFound(f"container {container_id!r} does not exist in pod {self.pod_id}")
        return container

    async def unknown(self, op: str) -> Reply:
        """Refuse an operation this monitor does not have."""
        raise Unimplemented(f"this monitor (version {VERSION}) has no operation {op!r}")

    async def _setup(self, message: dict[str, Any]) -> Reply:
        request = decode(NamespaceRequest, message)
        if self._namespaces is not None:
            raise FailedPrecondition(f"pod {self.pod_id} has its namespaces already")
        if request.scope:
            self._home = scope.home(detect())
            own = os.getpid()
            entering = process.call(
                self.reactor, "wherry-scope", lambda: scope.enter(request.scope, own), seconds=_SETUP_SECONDS
            )
            await entering
        made = await self._aside_or_here(pod.fits_here(request), lambda: pod.make(request, self.state_dir))
        self._namespaces = decode(PodNamespaces, made["namespaces"])
        return encode(self._namespaces)  # type: ignore[no-any-return]  # a dataclass becomes an object

    async def _aside_or_here(self, here: bool, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if here:
            return process.here(work)
        return await process.call(self.reactor, "wherry-pod", work, seconds=_SETUP_SECONDS)

    async def _teardown(self, _message: dict[str, Any]) -> Reply:
        deletions = [self.reactor.spawn(self._delete_one(container)) for container in list(self.containers.values())]
        failures = []
        for deletion in deletions:
            try:
                await self.reactor.within(_TEARDOWN_PARALLEL_SECONDS, deletion)
            except Exception as error:  # noqa: BLE001 - every step runs even when an earlier one fails
                failures.append(f"{type(error).__name__}: {error}")
        process.here(lambda: pod.remove_all(self.state_dir))
        scope.leave(self._home)
        self._namespaces = None
        if failures:
            raise WherryError(f"pod {self.pod_id} was not torn down completely: {'; '.join(failures)}")
        return {}

    async def _create(self, message: dict[str, Any]) -> Reply:
        request = decode(ContainerCreate, message)
        for value in (request.container_id,):
            if not _PLAIN_ID.match(value):
                raise InvalidArgument(f"container_id {value!r} is not a plain name")
        check_new(self.containers, request)
        container = Container(self._around, self._runtime(request), request)
        self.containers[request.container_id] = container
        try:
            return {"pid": await container.create()}
        except BaseException:
            del self.containers[request.container_id]
            self._around.exits.forget(request.container_id)
            raise

    async def _start(self, message: dict[str, Any]) -> Reply:
        return {"started_at_ns": await self._find(message).start()}

    async def _kill(self, message: dict[str, Any]) -> Reply:
        signal, everyone = message.get("signal"), message.get("all", False)
        if type(signal) is not int or not 0 <= signal <= 64 or type(everyone) is not bool:
            raise InvalidArgument("signal must be a number from 0 to 64 and all a boolean")
        await self._find(message).kill(signal, all_processes=everyone)
        return {}

    async def _delete(self, message: dict[str, Any]) -> Reply:
        try:
            container = self._find(message)
        except NotFound:
            return {}
        await self._delete_one(container)
        return {}

    async def _delete_one(self, container: Container) -> None:
        await container.delete()
        self.containers.pop(container.request.container_id, None)

    async def _update(self, message: dict[str, Any]) -> Reply:
        resources = message.get("resources")
        if not isinstance(resources, dict):
            raise InvalidArgument("resources must be an object")
        await self._find(message).runtime.update(str(message["id"]), resources)
        return {}

    async def _checkpoint(self, message: dict[str, Any]) -> Reply:
        request = decode(CheckpointRequest, message)
        await save([self._find({"id": one}) for one in request.containers], request)
        return {}

    async def _exec_sync(self, message: dict[str, Any]) -> Reply:
        return await self._execs.run_sync(self._find(message), decode(ExecRequest, message))

    async def _attach(self, message: dict[str, Any], fds: list[int], _session: Session) -> Reply:
        self._find(message).attach(decode(AttachRequest, message), fds)
        return {}

    async def _exec_stream(self, message: dict[str, Any], fds: list[int], session: Session) -> Reply:
        reply, master = await self.sessions.start(self._find(message), decode(ExecRequest, message), fds)
        session.streams.append(reply["exec"])
        if not session.link.open:
            session.abandon()
        return reply, master

    async def _reopen_log(self, message: dict[str, Any]) -> Reply:
        self._find(message).reopen_log()
        return {}

    async def _resize(self, message: dict[str, Any]) -> Reply:
        width, height = message.get("width"), message.get("height")
        if type(width) is not int or type(height) is not int or not (0 < width < 1 << 16 and 0 < height < 1 << 16):
            raise InvalidArgument("width and height must be positive numbers")
        stdio = self._find(message).stdio
        if stdio is not None:
            stdio.resize(width, height)
        return {}

    async def _list(self, _message: dict[str, Any]) -> Reply:
        return {
            "containers": [encode(container.describe()) for container in self.containers.values()],
            "namespaces": encode(self._namespaces),
        }

    async def _shutdown(self, _message: dict[str, Any]) -> Reply:
        if self.containers or self._namespaces is not None:
            raise FailedPrecondition(f"pod {self.pod_id} still has {len(self.containers)} containers or its namespaces")
        self.reactor.at(0, self._stop)
        return {}

    def _stop(self) -> None:
        remove(os.path.join(self.state_dir, SOCKET))
        self.reactor.stop()

    def close(self) -> None:
        """Close what the monitor holds, in a process that goes on."""
        self._listener.close()
        self.reactor.close()

    def run(self) -> None:
        """Serve until told to shut down."""
        write_json(
            os.path.join(self.state_dir, "monitor.json"),
            {"pod_id": self.pod_id, "pid": os.getpid(), "version": VERSION, "started_at_ns": time.time_ns()},
        )
        self.reactor.run()


class Session:
    """One client."""

    def __init__(self, monitor: Monitor, sock: socket.socket) -> None:
        self._monitor = monitor
        self.greeted = False
        self.streams: list[str] = []
        """Processes started by exec_stream over this link."""
        self._cancellable: dict[int, Task[None]] = {}
        self.link = Link(monitor.reactor, sock, self._received)

    def _received(self, message: dict[str, Any], fds: list[int]) -> None:
        seq, op = message.get("seq"), message.get("op")
        if op not in self._monitor.streaming:  # nothing else takes descriptors
            close_all(fds)
        if type(seq) is not int or not isinstance(op, str):
            self.link.close()
        elif not self.greeted:
            self._hello(seq, op, message)
        elif op == "cancel":
            task = self._cancellable.pop(message.get("target", -1), None)
            if task is not None:
                task.cancel()
        else:
            task = self._monitor.reactor.spawn(self._serve(seq, op, message, fds))
            if op == "exec_sync" and not task.done:
                self._cancellable[seq] = task

    def _hello(self, seq: int, op: str, message: dict[str, Any]) -> None:
        versions = message.get("versions")
        common = [version for version in VERSIONS if isinstance(versions, list) and version in versions]
        if op != "hello" or not common:
            text = f"the monitor of pod {self._monitor.pod_id} speaks versions {list(VERSIONS)}; say hello with one of them"
            self.link.send({"seq": seq, "error": wire.value_of(FailedPrecondition(text))})
            self.link.close()
            return
        self.greeted = True
        self.link.send({"seq": seq, "ok": {"version": common[0], "pod_id": self._monitor.pod_id, "pid": os.getpid()}})

    def _answer(self, op: str, message: dict[str, Any], given: list[int]) -> Awaitable[Reply]:
        streaming = self._monitor.streaming.get(op)
        if streaming is not None:
            return streaming(message, given, self)
        operation = self._monitor.operations.get(op)
        return self._monitor.unknown(op) if operation is None else operation(message)

    async def _serve(self, seq: int, op: str, message: dict[str, Any], given: list[int]) -> None:
        fds: list[int] = []
        try:
            answer = await self._answer(op, message, given)
            value, fds = answer if isinstance(answer, tuple) else (answer, fds)
            reply = {"seq": seq, "ok": value}
        except Cancelled:
            reply = {"seq": seq, "error": {"code": "UNKNOWN", "message": "cancelled"}}
        except Exception as error:  # noqa: BLE001 - it crosses as a value
            if not isinstance(error, WherryError):
                self._monitor.trouble.write(f"{op}: {type(error).__name__}: {error}")
            reply = {"seq": seq, "error": wire.value_of(error)}
        finally:
            close_all(given)
        self._cancellable.pop(seq, None)
        self.link.send(reply, fds)

    def abandon(self) -> None:
        """End what only this client was waiting for."""
        tasks, self._cancellable = list(self._cancellable.values()), {}
        for task in tasks:
            task.cancel()
        streams, self.streams = self.streams, []
        for name in streams:
            self._monitor.sessions.abandon(name)


def run_monitor(pod_id: str, state_dir: str, listener: socket.socket) -> NoReturn:
    """Be the monitor of a pod, in a fresh child of the spawner; never returns."""
    status = 1
    try:
        process.become_child("wherry-monitor", [listener.fileno()])
        os.chdir("/")
        set_dumpable(dumpable=False)
        set_child_subreaper()
        gc.set_threshold(20_000, 50, 1000)  # a collection writes to what it looks at, and next to nothing here is cyclic
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for fd in range(3):
            os.dup2(null, fd, inheritable=True)
        os.close(null)
        Monitor(pod_id, state_dir, listener).run()
        status = 0
    finally:
        os._exit(status)
