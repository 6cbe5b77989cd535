"""Drives another OCI runtime (runc, crun, kata …) through its command line, as containerd's shim and conmon do."""

from __future__ import annotations

import contextlib
import os

from runtime import jsonlite
from runtime.apply.cgroup import from_paths
from shim import process
from shim.errors import Internal, NotFound, WherryError
from shim.monitor import overlay
from shim.monitor.checkpoint import criu_flags
from shim.monitor.execgroups import ExecGroups, exec_option, paths_of, pipes_of
from shim.monitor.files import write_json
from shim.monitor.runtimes import CALL_SECONDS, failed_from_text, merged_process, of_exec
from shim.reactor import Cancelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shim.monitor.console import ConsoleSocket
    from shim.monitor.protocol import ContainerCreate, ExecRequest
    from shim.reactor import Reactor

_MESSAGE_LIMIT = 8192
_USAGE_LIMIT = 65536
_USAGE: dict[str, str] = {}


class ExternalRuntime:
    """A runtime binary, called for the containers below one state root."""

    def __init__(self, reactor: Reactor, request: ContainerCreate, scratch: str) -> None:
        self._reactor = reactor
        self._binary = request.handler
        self._command = [request.handler, *request.handler_options]
        self._scratch = scratch
        driver = ["--systemd-cgroup"] if request.systemd_cgroup else []
        self._global = ["--root", request.state_root, *driver]
        self._groups = ExecGroups()

    def _path(self, container_id: str, suffix: str) -> str:
        return os.path.join(self._scratch, f"{container_id}.{suffix}")

    async def _run(
        self, container_id: str, arguments: list[str], stdio: tuple[int, int, int] | None = None, keep: tuple[int, ...] = ()
    ) -> None:
        """Run one command; raise NotFound or Internal with the runtime's own words."""
        log = self._path(container_id, "log")
        argv = [*self._command, *self._global, "--log", log, "--log-format", "json", *arguments]
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            status = await process.execute(
                self._reactor, argv, stdio=stdio or (null, null, null), keep=keep, seconds=CALL_SECONDS
            )
            if status != 0:
                raise _explain(os.path.basename(self._binary), arguments[0], status, last_error(log))
        except OSError as error:
            raise Internal(f"runtime handler {self._binary} cannot be executed: {error.strerror}") from error
        finally:
            os.close(null)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(log)

    async def create(self, request: ContainerCreate, stdio: tuple[int, int, int], console: ConsoleSocket | None) -> int:
        """See OciRuntime; the rootfs is mounted in the bundle, on the host."""
        pid_file = self._path(request.container_id, "pid")
        arguments = ["create"]
        if request.checkpoint:
            arguments = ["restore", "--detach", *criu_flags(request.checkpoint, request.options)]
        arguments += ["--bundle", request.bundle, "--pid-file", pid_file]
        if console is not None:
            arguments += ["--console-socket", console.path]
        mounted = request.rootfs is not None
        if mounted:
            await process.call(self._reactor, "wherry-mount", lambda: overlay.mount_rootfs(request), seconds=CALL_SECONDS)
        try:
            keep = console.keep if console is not None else ()
            await self._run(request.container_id, [*arguments, request.container_id], stdio, keep)
            self._groups.paths = paths_of(_read_pid(pid_file))
            return _read_pid(pid_file)
        except WherryError as error:
            if mounted:
                await process.call(self._reactor, "wherry-umount", lambda: overlay.unmount_rootfs(request.bundle))
            if type(error) is Internal:
                raise failed_from_text(str(error)) from error
            raise
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(pid_file)

    async def start(self, container_id: str) -> None:
        """See OciRuntime."""
        try:
            await self._run(container_id, ["start", container_id])
        except Internal as error:
            raise failed_from_text(str(error)) from error

    async def kill(self, container_id: str, signal: int, *, all_processes: bool) -> None:
        """See OciRuntime."""
        arguments = ["kill", *(["--all"] if all_processes else []), container_id, str(signal)]
        with contextlib.suppress(NotFound):
            await self._run(container_id, arguments)

    def is_frozen(self) -> bool:
        """See OciRuntime."""
        return bool(self._groups.paths) and process.here(from_paths(self._groups.paths).frozen)

    async def delete(self, request: ContainerCreate, *, ended: bool = False) -> None:
        """See OciRuntime."""
        del ended
        with contextlib.suppress(NotFound):
            await self._run(request.container_id, ["delete", "--force", request.container_id])
        if request.rootfs is not None:
            await process.call(self._reactor, "wherry-umount", lambda: overlay.unmount_rootfs(request.bundle))

    async def update(self, container_id: str, resources: dict[str, Any]) -> None:
        """See OciRuntime."""
        document = self._path(container_id, "resources")
        try:
            write_json(document, resources)
            await self._run(container_id, ["update", "--resources", document, container_id])
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(document)

    async def pause(self, container_id: str) -> None:
        """See OciRuntime."""
        await self._run(container_id, ["pause", container_id])

    async def resume(self, container_id: str) -> None:
        """See OciRuntime."""
        await self._run(container_id, ["resume", container_id])

    async def checkpoint(self, container_id: str, folder: str, options: dict[str, bool], seconds: float) -> None:
        """See OciRuntime; runc's flags, which crun has too."""
        del seconds  # each command has its own time
        await self._run(container_id, ["checkpoint", "--leave-running", *criu_flags(folder, options), container_id])

    async def exec(
        self,
        request: ExecRequest,
        bundle: str,
        stdio: tuple[int, int, int],
        group: str,
        console: ConsoleSocket | None = None,
    ) -> int:
        """See OciRuntime; a runtime that cannot be told of a cgroup finds its process moved there as soon as it runs."""
        stem = f"{request.container_id}.{group}"
        process_file, pid_file = self._path(stem, "process"), self._path(stem, "pid")
        try:
            write_json(process_file, merged_process(bundle, request.process))
            placed = await self._place(group)
            arguments = ["exec", "--detach", "--process", process_file, "--pid-file", pid_file, *placed]
            if console is not None:
                arguments += ["--console-socket", console.path]
            keep = console.keep if console is not None else ()
            await self._run(stem, [*arguments, request.container_id], stdio, keep)
            if not placed:
                pid, pipes = _read_pid(pid_file), pipes_of(stdio)
                await self._aside("wherry-mover", lambda: self._groups.adopt(group, pid, pipes))
            return _read_pid(pid_file)
        except Cancelled:  # the process may run already
            await self._aside("wherry-killer", lambda: self._groups.kill(group, _pid_if_any(pid_file)))
            self.end_exec(group)
            raise
        except Internal as error:
            self.end_exec(group)
            raise of_exec(failed_from_text(str(error))) from error
        finally:
            for path in (process_file, pid_file):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    async def _place(self, group: str) -> list[str]:
        """Make the cgroup of an exec and give the option that puts it there; none where the runtime has no such option."""
        key = process.here(lambda: self._groups.make(group))
        return [] if key is None else exec_option(await self._usage(), key, group)

    async def _usage(self) -> str:
        """Give what the binary says about its exec command, asked once."""
        name = " ".join(self._command)
        if name in _USAGE:
            return _USAGE[name]
        said = os.memfd_create("wherry-usage", os.MFD_CLOEXEC)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            await process.execute(
                self._reactor, [*self._command, "exec", "--help"], stdio=(null, said, null), seconds=CALL_SECONDS
            )
            _USAGE[name] = os.pread(said, _USAGE_LIMIT, 0).decode("utf-8", "replace")
        except OSError as error:
            raise Internal(f"runtime handler {self._binary} cannot be executed: {error.strerror}") from error
        finally:
            os.close(said)
            os.close(null)
        return _USAGE[name]

    async def _aside(self, name: str, work: Callable[[], None]) -> None:
        def call() -> dict[str, Any]:
            work()
            return {}

        await process.call(self._reactor, name, call, seconds=CALL_SECONDS)

    def end_exec(self, group: str) -> None:
        """See OciRuntime."""
        self._groups.remove(group)

    def rest(self) -> dict[str, Any]:
        """See OciRuntime."""
        return {"cgroup": self._groups.paths}

    def wake(self, left: dict[str, Any]) -> None:
        """See OciRuntime."""
        self._groups.paths = tuple((key, path) for key, path in left["cgroup"])

    async def kill_exec(self, container_id: str, pid: int, group: str) -> None:
        """See OciRuntime."""
        del container_id
        await self._aside("wherry-killer", lambda: self._groups.kill(group, pid))


def _read_pid(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read(32))


def _pid_if_any(path: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        return _read_pid(path)
    return 0


def _explain(name: str, command: str, status: int, message: str) -> WherryError:
    lower = message.lower()
    absent = "does not exist" in lower and ("container" in lower or "status" in lower)
    if command not in ("create", "exec") and (absent or "container not running" in lower):
        return NotFound(f"{name} {command}: {message}")
    if command == "kill" and ("not running" in lower or "process already finished" in lower or "no such process" in lower):
        return NotFound(f"{name} {command}: {message}")
    return Internal(f"{name} {command} failed: {message or f'exit status {status}'}")


def last_error(path: str) -> str:
    """Give the message of the last error in a JSON log, at most _MESSAGE_LIMIT bytes of it.

    An entry begins at a brace at the beginning of a line: runc has one a line, crun 1.28 spreads one over several.
    """
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 2 * _MESSAGE_LIMIT))
            entries = (b"\n" + file.read(2 * _MESSAGE_LIMIT)).split(b"\n{")
    except OSError:
        return ""
    for text in reversed(entries):
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            entry = jsonlite.loads(b"{" + text)
            if entry.get("level", "error") in ("error", "fatal"):
                return str(entry["msg"])[:_MESSAGE_LIMIT].strip()
    return ""
