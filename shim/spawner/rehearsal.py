"""Run a monitor once, in the nursery and with a runtime that is none, before the first real one is forked.

Memory is the reason. A monitor shares its pages with the nursery until one of both writes to them, and CPython writes to
code while it learns which forms its instructions take (PEP 659), and to the caches of types and modules. After this they
are as they will stay: measured, a fifth less private memory a pod. The node's first pod is the quicker for it, too.
"""

from __future__ import annotations

import contextlib
import os
import signal

from runtime.kernel.mount import fsmount, fsopen
from shim import process, wire
from shim.monitor.files import SOCKET
from shim.monitor.protocol import ContainerCreate, ExecRequest, encode
from shim.monitor.server import Monitor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shim.monitor.console import ConsoleSocket
    from shim.reactor import Reactor

ROUNDS = 6
"""Eight calls or loops make the interpreter look at a function; each operation occurs more than once in a round."""
_TURN_SECONDS = 2.0


class Extras:
    """A runtime whose containers are forks that wait or write; for the rehearsal only."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._pids: dict[str, int] = {}

    def _fork(self, stdio: tuple[int, int, int], *, waits: bool) -> int:
        parent = os.getpid()
        pid = process.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                process.become_child("wherry-extra", stdio, parent=parent)
                os.write(stdio[1], b"a line\nand another\n")
                if waits:
                    signal.pause()
            os._exit(0)
        return pid

    async def create(self, request: ContainerCreate, stdio: tuple[int, int, int], console: ConsoleSocket | None) -> int:
        """Fork something that writes a line and waits."""
        del console
        await process.call(self._reactor, "wherry-extra", lambda: {"pid": 1}, seconds=_TURN_SECONDS)
        self._pids[request.container_id] = self._fork(stdio, waits=True)
        return self._pids[request.container_id]

    async def start(self, container_id: str) -> None:
        """Play the start."""
        del container_id
        await process.call(self._reactor, "wherry-extra", dict, seconds=_TURN_SECONDS)

    async def kill(self, container_id: str, signal: int, *, all_processes: bool) -> None:
        """Signal it."""
        del all_processes
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pids[container_id], signal)

    async def update(self, container_id: str, resources: dict[str, Any]) -> None:
        """Change nothing: limits are no part of the rehearsal."""

    async def pause(self, container_id: str) -> None:
        """Play nothing."""

    async def resume(self, container_id: str) -> None:
        """Play nothing."""

    async def checkpoint(self, container_id: str, folder: str, options: dict[str, bool], seconds: float) -> None:
        """Play nothing."""

    def is_frozen(self) -> bool:
        """Play nothing."""
        return False

    async def delete(self, request: ContainerCreate, *, ended: bool = False) -> None:
        """Kill it."""
        del ended
        await self.kill(request.container_id, signal.SIGKILL, all_processes=True)

    async def exec(
        self,
        request: ExecRequest,
        bundle: str,
        stdio: tuple[int, int, int],
        group: str,
        console: ConsoleSocket | None = None,
    ) -> int:
        """Fork something that writes a line and ends."""
        del request, bundle, group, console
        return self._fork(stdio, waits=False)

    async def kill_exec(self, container_id: str, pid: int, group: str) -> None:
        """Play nothing: no exec takes long."""

    def end_exec(self, group: str) -> None:
        """Play nothing."""

    def rest(self) -> dict[str, Any]:
        """Play nothing."""
        return {}

    def wake(self, left: dict[str, Any]) -> None:
        """Play nothing."""


class _Stage:
    """A monitor in this process and a client to it."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._monitor = Monitor("0" * 64, folder, wire.listen(os.path.join(folder, SOCKET)), pid=os.getpid())
        extras = Extras(self._monitor.reactor)
        self._monitor.runtime_for = lambda _request: extras  # type: ignore[method-assign,assignment]  # nothing may be started
        self._monitor.begin()
        self._client = wire.connect(os.path.join(folder, SOCKET))
        self._client.setblocking(False)
        self._seq = 0

    def ask(self, op: str, **parameters: Any) -> None:
        """Send a request and run the loop until its reply is there."""
        self._seq += 1
        wire.send(self._client, {"seq": self._seq, "op": op, **parameters})
        while not self._replied():
            self._monitor.reactor.turn(_TURN_SECONDS)

    def _replied(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            while True:
                message, fds = wire.recv(self._client)
                for fd in fds:
                    os.close(fd)
                if message.get("seq") == self._seq:
                    return True
        return False

    def play(self) -> None:
        """Go through a container's life."""
        order = ContainerCreate(
            container_id="0" * 64, bundle=self._folder, state_root=self._folder, log_path=os.path.join(self._folder, "log")
        )
        self.ask("hello", versions=[1])
        self.ask("create", **encode(order))
        self.ask("start", id=order.container_id)
        self.ask("exec_sync", **encode(ExecRequest(container_id=order.container_id, process={"args": ["true"]}, timeout_s=2.0)))
        self.ask("list")
        self.ask("kill", id=order.container_id, signal=int(signal.SIGKILL), all=False)
        self.ask("delete", id=order.container_id)
        self.ask("list")

    def close(self) -> None:
        """Close both ends."""
        self._client.close()
        self._monitor.reactor.turn(0)
        self._monitor.close()


def _folder() -> int:
    """Open a file system of our own that is mounted nowhere: it is gone with its descriptor, however this process ends."""
    context = fsopen("tmpfs")
    try:
        return fsmount(context)
    finally:
        os.close(context)


def rehearse() -> None:
    """Play it ROUNDS times in a directory that is gone afterwards; what fails is left out, because nothing depends on it."""
    folder = _folder()
    try:
        for _ in range(ROUNDS):
            stage = _Stage(f"/proc/self/fd/{folder}")
            try:
                stage.play()
            finally:
                stage.close()
    finally:
        os.close(folder)
