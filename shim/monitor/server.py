"""The monitor itself: the process that stands beside a pod, and what it answers on its socket (see protocol.py)."""

from __future__ import annotations

import contextlib
import gc
import os
import time

from runtime.apply.cgroup import detect
from shim import process
from shim.errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented, WherryError
from shim.monitor import keeper, pod, rest, scope
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
from shim.monitor.session import Session
from shim.monitor.sessions import ExecSessions
from shim.monitor.trouble import TroubleLog
from shim.reactor import READ, Reactor

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable
    from typing import Any, NoReturn

    from shim.monitor.oci_runtime import OciRuntime

    Reply = dict[str, Any] | tuple[dict[str, Any], list[int]]

_NAMES = {kind: name for name, kind in EVENTS.items()}
_ID_MARKS = b"_.+-"
_ID_LENGTH = 128
_SETUP_SECONDS = 30.0
_TEARDOWN_PARALLEL_SECONDS = 30.0


class Monitor:
    """The state of one pod's monitor and its operations."""

    def __init__(self, pod_id: str, state_dir: str, listener: socket.socket, *, pid: int) -> None:
        """`pid` is what clients know it by: its keeper's."""
        self.pod_id = pod_id
        self.pid = pid
        self.activity = 0
        """Grows whenever something has happened."""
        self.state_dir = state_dir
        self.trouble = TroubleLog(os.path.join(state_dir, "monitor.log"))
        self.reactor = Reactor(on_error=self.trouble.write)
        self.containers: dict[str, Container] = {}
        self.listener = listener
        self.sessions: set[Session] = set()
        self.namespaces: PodNamespaces | None = pod.load(state_dir)
        self.execs = Execs(self.reactor)
        self.home: tuple[str, ...] = ()
        """Where the monitor was before it went into its pod's scope."""
        scratch = os.path.join(state_dir, "scratch")
        os.makedirs(scratch, 0o700, exist_ok=True)
        self._scratch = scratch
        self.around = Surroundings(self.reactor, ExitStore(state_dir), scratch, self._emit, self.trouble.write)
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
            "exec_wait": lambda message: self.streamed.wait(message.get("exec")),
            "exec_kill": lambda message: self.streamed.kill(message.get("exec")),
            "list": self._list,
            "shutdown": self._shutdown,
        }
        self.streamed = ExecSessions(self.reactor, scratch, self.trouble.write)
        self.streaming: dict[str, Callable[[dict[str, Any], list[int], Session], Awaitable[Reply]]] = {
            "attach": self._attach,
            "exec_stream": self._exec_stream,
        }
        listener.setblocking(False)
        self.reactor.watch(listener.fileno(), READ, self._accept)

    def begin(self) -> None:
        """Say who we are, and take over what an earlier monitor of this pod left behind when it died."""
        write_json(
            os.path.join(self.state_dir, "monitor.json"),
            {"pod_id": self.pod_id, "pid": self.pid, "version": VERSION, "started_at_ns": time.time_ns()},
        )
        for request, pid, start, started_at_ns in self.around.exits.remembered():
            container = Container(self.around, self.runtime_for(request), request)
            self.containers[request.container_id] = container
            container.exit = self.around.exits.find(request.container_id)
            if container.exit is None and still_lives(pid, start):
                container.readopt(pid, started_at_ns)
                if not request.handler:  # it is frozen when the one who died was saving it
                    self.reactor.spawn(container.runtime.resume(request.container_id))
            else:
                container.status = "stopped"
                container.ended.set(None)

    def _accept(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            sock, _address = self.listener.accept()
            self.admit(sock)

    def admit(self, sock: socket.socket) -> Session:
        """Serve a client."""
        session = Session(self, sock)
        self.sessions.add(session)
        session.link.on_close = lambda: self._leave(session)
        self.activity += 1
        return session

    def _leave(self, session: Session) -> None:
        self.activity += 1
        self.sessions.discard(session)
        session.abandon()

    def _emit(self, event: Exited | Oom | LogLost) -> None:
        self.activity += 1
        message = {"event": _NAMES[type(event)], **encode(event)}
        for session in list(self.sessions):
            if session.greeted:
                session.link.send(message)

    def runtime_for(self, request: ContainerCreate) -> OciRuntime:
        """Give the object that drives the runtime a container is made by."""
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
        if self.namespaces is not None:
            raise FailedPrecondition(f"pod {self.pod_id} has its namespaces already")
        if request.scope:
            self.home = scope.home(detect())
            pids = [self.pid, os.getpid()]
            entering = process.call(
                self.reactor, "wherry-scope", lambda: scope.enter(request.scope, pids), seconds=_SETUP_SECONDS
            )
            await entering
        made = await self._aside_or_here(pod.fits_here(request), lambda: pod.make(request, self.state_dir))
        self.namespaces = decode(PodNamespaces, made["namespaces"])
        return encode(self.namespaces)  # type: ignore[no-any-return]  # a dataclass becomes an object

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
        scope.leave(self.home, (self.pid, os.getpid()))
        self.namespaces = None
        if failures:
            raise WherryError(f"pod {self.pod_id} was not torn down completely: {'; '.join(failures)}")
        return {}

    async def _create(self, message: dict[str, Any]) -> Reply:
        request = decode(ContainerCreate, message)
        if not _is_plain(request.container_id):
            raise InvalidArgument(f"container_id {request.container_id!r} is not a plain name")
        check_new(self.containers, request)
        container = Container(self.around, self.runtime_for(request), request)
        self.containers[request.container_id] = container
        try:
            return {"pid": await container.create()}
        except BaseException:
            del self.containers[request.container_id]
            self.around.exits.forget(request.container_id)
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
        return await self.execs.run_sync(self._find(message), decode(ExecRequest, message))

    async def _attach(self, message: dict[str, Any], fds: list[int], _session: Session) -> Reply:
        self._find(message).attach(decode(AttachRequest, message), fds)
        return {}

    async def _exec_stream(self, message: dict[str, Any], fds: list[int], session: Session) -> Reply:
        reply, master = await self.streamed.start(self._find(message), decode(ExecRequest, message), fds)
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
            "namespaces": encode(self.namespaces),
        }

    async def _shutdown(self, _message: dict[str, Any]) -> Reply:
        if self.containers or self.namespaces is not None:
            raise FailedPrecondition(f"pod {self.pod_id} still has {len(self.containers)} containers or its namespaces")
        self.reactor.at(0, self._stop)
        return {}

    def _stop(self) -> None:
        remove(os.path.join(self.state_dir, SOCKET))
        self.reactor.stop()

    def close(self) -> None:
        """Close what the monitor holds, in a process that goes on."""
        self.listener.close()
        self.reactor.close()


def _is_plain(name: str) -> bool:
    """Tell whether a name is of letters, digits and a few marks, the first being none of those; without `re`, for its size."""
    return (
        name.isascii() and name[:1].isalnum() and len(name) <= _ID_LENGTH and name.encode().translate(None, _ID_MARKS).isalnum()
    )


def run_monitor(post: keeper.Post) -> NoReturn:
    """Be a pod's keeper, in a fresh child of the nursery, with monitors that come and go; never returns."""
    status = 1
    try:
        keeper.settle(post.listener.fileno())
        gc.set_threshold(20_000, 50, 1000)  # a collection writes to what it looks at, and next to nothing here is cyclic
        own = os.getpid()

        def work(link: socket.socket, left: keeper.Rest | None) -> None:
            post.take()
            monitor = Monitor(post.pod_id, post.state_dir, post.listener, pid=own)
            if left is None:
                monitor.begin()
            bed = rest.Bed(monitor, link, rest.PATIENCE if left is None else rest.unpack(monitor, left))
            monitor.reactor.run()
            bed.leave()

        keeper.Keeper(post, work).run()
        status = 0
    finally:
        os._exit(status)
