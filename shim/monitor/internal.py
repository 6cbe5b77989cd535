"""The built-in runtime, called in short-lived children of the monitor: it may block, enter namespaces and fail there."""

from __future__ import annotations

import contextlib
import os

from runtime import api
from runtime.apply.cgroup import from_paths
from runtime.checkpoint.request import DumpRequest, RestoreRequest
from runtime.launch.alone import Alone
from runtime.launch.gate import Opening
from runtime.launch.setns import Decided, exec_steps
from runtime.spec.parse import parse_process
from runtime.spec.parse_resources import parse_resources
from runtime.spec.reader import Reader
from runtime.spec.validate_resources import validate_resources
from runtime.state import GATE, container_dir
from shim import process
from shim.errors import AlreadyExists, DeadlineExceeded, FailedPrecondition, NotFound, WherryError
from shim.monitor.checkpoint import criu_options
from shim.monitor.execgroups import ExecGroups
from shim.monitor.files import remove
from shim.monitor.protocol import StartFailed
from shim.monitor.runtimes import CALL_SECONDS, failed_from_text, merged_process, of_exec, start_failed
from shim.reactor import Cancelled, Expired

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from runtime.spec.model import Process
    from shim.monitor.console import ConsoleSocket
    from shim.monitor.protocol import ContainerCreate, ExecRequest
    from shim.reactor import Reactor


class Probe:
    """The last exec, whose command a probe runs again and again: read and decided once."""

    __slots__ = ("decided", "parsed", "process")

    def __init__(self, process: dict[str, Any], parsed: Process) -> None:
        self.process = process
        self.parsed = parsed
        self.decided: Decided | None = None

    def decide(self, order: api.ExecRequest) -> Decided:
        """Give what is decided for `order`, which is one for this command."""
        if self.decided is None:
            self.decided = Decided(order)
        return self.decided


class InternalRuntime:
    """runtime.api for the containers below one state root."""

    def __init__(self, reactor: Reactor, state_root: str) -> None:
        self._reactor = reactor
        self._state_root = state_root
        self._groups = ExecGroups()
        self._probe: Probe | None = None
        self._plain = False
        """Whether no other program has a part in start, exec and delete: no hook, no seccomp agent; unknown until created."""

    async def _call(self, name: str, work: Callable[[], dict[str, Any]], keep: Iterable[int] = ()) -> dict[str, Any]:
        return await process.call(self._reactor, name, work, keep=keep, seconds=CALL_SECONDS)

    async def create(self, request: ContainerCreate, stdio: tuple[int, int, int], console: ConsoleSocket | None) -> int:
        """See OciRuntime; init mounts the rootfs itself."""
        rootfs = None
        if request.rootfs is not None:
            given = request.rootfs
            rootfs = api.RootfsMount(
                lower=tuple(given.lower), upper=given.upper or None, work=given.work or None, options=tuple(given.options)
            )
        order = api.CreateRequest(
            container_id=request.container_id,
            state_root=self._state_root,
            bundle=request.bundle,
            rootfs=rootfs,
            stdio=stdio,
            console_socket=console.peer_fd if console is not None else None,
            systemd_cgroup=request.systemd_cgroup,
        )
        keep = [*stdio, *(console.keep if console is not None else ())]
        creation = Alone(order, request.alone)
        if request.alone and not request.checkpoint and creation.prepare():
            return await self._create_alone(creation)
        try:
            if request.checkpoint:
                made = await self._call("wherry-restorer", lambda: _restore(order, request), keep)
            else:
                made = await self._call("wherry-creator", lambda: _create(order), keep)
        except WherryError as error:
            raise _as_start_failure(error) from error
        self._groups.paths = tuple((key, path) for key, path in made["cgroup"])
        self._plain = made["plain"]
        return int(made["pid"])

    async def _create_alone(self, creation: Alone) -> int:
        try:
            pid, self._groups.paths = await process.drive(self._reactor, creation.steps(), CALL_SECONDS)
        except WherryError as error:
            await self._clear(creation, keep_folder=isinstance(error, AlreadyExists))
            raise _as_start_failure(error) from error
        finally:
            creation.close()
        self._plain = True  # a hook or an agent would have taken a creator
        return pid

    async def _clear(self, creation: Alone, *, keep_folder: bool) -> None:
        def work() -> dict[str, Any]:
            creation.clear(keep_folder=keep_folder)
            return {}

        await self._call("wherry-deleter", work, keep=creation.descriptors())

    async def start(self, container_id: str) -> None:
        """See OciRuntime."""
        try:
            await (self._start_here(container_id) if self._plain else self._start_aside(container_id))
        except WherryError as error:
            failure = _as_start_failure(error)
            raise failure if isinstance(failure, StartFailed) else failed_from_text(str(error)) from error

    async def _start_aside(self, container_id: str) -> None:
        def work() -> dict[str, Any]:
            api.start(self._state_root, container_id)
            return {}

        await self._call("wherry-starter", work)

    async def _start_here(self, container_id: str) -> None:
        folder = container_dir(self._state_root, container_id)
        opening = process.here(lambda: Opening(folder, container_id))
        over = self._reactor.readable(opening.fileno())
        try:
            await self._reactor.within(CALL_SECONDS, over)
        except (Expired, Cancelled) as error:
            self._reactor.unwatch(opening.fileno())
            opening.close()
            if isinstance(error, Expired):
                raise DeadlineExceeded(f"container {container_id} did not start within {CALL_SECONDS:g} s") from None
            raise
        process.here(opening.finish)
        remove(os.path.join(folder, GATE))

    def is_frozen(self) -> bool:
        """See OciRuntime."""
        return bool(self._groups.paths) and process.here(from_paths(self._groups.paths).frozen)

    async def kill(self, container_id: str, signal: int, *, all_processes: bool) -> None:
        """See OciRuntime."""

        def work() -> dict[str, Any]:
            api.kill(self._state_root, container_id, signal, all_processes=all_processes)
            return {}

        with contextlib.suppress(NotFound, FailedPrecondition):  # both mean that it does not run any more
            await self._call("wherry-killer", work)

    async def delete(self, request: ContainerCreate, *, ended: bool = False) -> None:
        """See OciRuntime; what has ended leaves only directories, for which no process is needed."""

        def work() -> dict[str, Any]:
            api.delete(self._state_root, request.container_id, force=True)
            return {}

        with contextlib.suppress(NotFound):
            if ended and self._plain:
                process.here(work)
            else:
                await self._call("wherry-deleter", work)

    async def update(self, container_id: str, resources: dict[str, Any]) -> None:
        """See OciRuntime."""

        def work() -> dict[str, Any]:
            wanted = parse_resources(Reader(resources, document="resources"))
            validate_resources(wanted, pointer="")
            api.update(self._state_root, container_id, wanted)
            return {}

        await self._call("wherry-updater", work)

    async def pause(self, container_id: str) -> None:
        """See OciRuntime."""

        def work() -> dict[str, Any]:
            api.pause(self._state_root, container_id)
            return {}

        await self._call("wherry-pauser", work)

    async def resume(self, container_id: str) -> None:
        """See OciRuntime."""

        def work() -> dict[str, Any]:
            api.resume(self._state_root, container_id)
            return {}

        with contextlib.suppress(NotFound, FailedPrecondition):
            await self._call("wherry-pauser", work)

    async def checkpoint(self, container_id: str, folder: str, options: dict[str, bool], seconds: float) -> None:
        """See OciRuntime."""

        def work() -> dict[str, Any]:
            api.checkpoint(
                DumpRequest(
                    container_id=container_id,
                    state_root=self._state_root,
                    options=criu_options(folder, options),
                    leave_running=True,
                )
            )
            return {}

        await process.call(self._reactor, "wherry-saver", work, seconds=seconds)

    async def exec(
        self,
        request: ExecRequest,
        bundle: str,
        stdio: tuple[int, int, int],
        group: str,
        console: ConsoleSocket | None = None,
    ) -> int:
        """See OciRuntime; the process gets a cgroup of its own below the container's, in one hierarchy."""

        def order() -> tuple[api.ExecRequest, Decided]:
            probe = self._probe
            if probe is None or probe.process != request.process:
                self._probe = probe = Probe(request.process, parse_process(merged_process(bundle, request.process)))
            key = self._groups.make(group)
            asked = api.ExecRequest(
                container_id=request.container_id,
                state_root=self._state_root,
                process=probe.parsed,
                stdio=stdio,
                console_socket=console.peer_fd if console is not None else None,
                cgroup=None if key is None else f"{key}:{group}",
            )
            return asked, probe.decide(asked)

        try:
            if self._plain:
                return await process.drive(self._reactor, exec_steps(*process.here(order)), CALL_SECONDS)
            keep = [*stdio, *(console.keep if console is not None else ())]
            made = await self._call("wherry-exec", lambda: {"pid": api.exec_process(order()[0])}, keep)
        except WherryError as error:
            self.end_exec(group)
            raise of_exec(_as_start_failure(error)) from error
        return int(made["pid"])

    async def kill_exec(self, container_id: str, pid: int, group: str) -> None:
        """See OciRuntime."""
        del container_id

        def work() -> dict[str, Any]:
            self._groups.kill(group, pid)
            return {}

        await self._call("wherry-killer", work)

    def end_exec(self, group: str) -> None:
        """See OciRuntime."""
        self._groups.remove(group)

    def rest(self) -> dict[str, Any]:
        """See OciRuntime."""
        return {"cgroup": self._groups.paths, "plain": self._plain}

    def wake(self, left: dict[str, Any]) -> None:
        """See OciRuntime."""
        self._groups.paths = tuple((key, path) for key, path in left["cgroup"])
        self._plain = left["plain"]


def _create(order: api.CreateRequest) -> dict[str, Any]:
    state = api.create(order)
    others = state.hooks.poststart or state.hooks.poststop or state.seccomp_listener
    return {"pid": state.pid, "cgroup": state.cgroup, "plain": not others}


def _restore(order: api.CreateRequest, request: ContainerCreate) -> dict[str, Any]:
    state = api.restore(RestoreRequest(create=order, options=criu_options(request.checkpoint, request.options)))
    others = state.hooks.poststart or state.hooks.poststop or state.seccomp_listener
    return {"pid": state.pid, "cgroup": state.cgroup, "plain": not others}


def _as_start_failure(error: WherryError) -> WherryError:
    """Give StartFailed where the fault of the runtime says that execve(2) failed, else the error itself."""
    fault = error.details.get("fault")
    if isinstance(fault, dict) and fault.get("kind") == "start":
        return start_failed(int(fault.get("errno") or 0), str(fault.get("path") or ""), str(fault.get("message") or ""))
    return error
