"""One interface to an OCI runtime, implemented by the built-in one (internal.py) and by any other binary (external.py)."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Protocol

from runtime import jsonlite
from shim.monitor.protocol import StartFailed

if TYPE_CHECKING:
    from shim.errors import WherryError
    from shim.monitor.console import ConsoleSocket
    from shim.monitor.protocol import ContainerCreate, ExecRequest

CALL_SECONDS = 120.0
"""How long one call of a runtime may take before its process group is killed: disks can be slow, hooks may take their time."""

REASON = "ContainerCannotRun"


class OciRuntime(Protocol):
    """What the monitor asks of a runtime. Everything is awaited: nothing here may block the loop.

    Errors are shim errors; StartFailed when the user's process is at fault, by `create` or by `start`, as the runtime has it.
    """

    async def create(self, request: ContainerCreate, stdio: tuple[int, int, int], console: ConsoleSocket | None) -> int:
        """Make the container wait at its gate; give the pid of its init, which is or becomes our child."""
        ...

    async def start(self, container_id: str) -> None:
        """Open the gate."""
        ...

    async def kill(self, container_id: str, signal: int, *, all_processes: bool) -> None:
        """Signal init, or every process; a container that has ended is no error."""
        ...

    def is_frozen(self) -> bool:
        """Tell whether its cgroup holds the container's processes still, so that even SIGKILL has to wait."""
        ...

    async def delete(self, request: ContainerCreate, *, ended: bool = False) -> None:
        """Kill what still runs and remove state, cgroup and mounts; one that does not exist is no error.

        `ended`: no process of it is left.
        """
        ...

    async def update(self, container_id: str, resources: dict[str, Any]) -> None:
        """Apply other limits (linux.resources of the OCI); what is left out stays."""
        ...

    async def pause(self, container_id: str) -> None:
        """Freeze all its processes."""
        ...

    async def resume(self, container_id: str) -> None:
        """Let them run on; one that is not paused, or has ended, is no error."""
        ...

    async def checkpoint(self, container_id: str, folder: str, options: dict[str, bool], seconds: float) -> None:
        """Save it into `folder`/checkpoint through criu, its log into `folder`; it stays as it is."""
        ...

    async def exec(
        self,
        request: ExecRequest,
        bundle: str,
        stdio: tuple[int, int, int],
        group: str,
        console: ConsoleSocket | None = None,
    ) -> int:
        """Run one more process; give its pid. `group` names it, for a cgroup of its own where that is possible.

        With `console` the process gets a terminal, whose master is sent there.
        """
        ...

    async def kill_exec(self, container_id: str, pid: int, group: str) -> None:
        """Kill a process that `exec` started, with all its descendants."""
        ...

    def end_exec(self, group: str) -> None:
        """Clean up after a process that `exec` started and that has ended."""
        ...

    def rest(self) -> dict[str, Any]:
        """Give what the next monitor's object for this container has to know, as JSON has it."""
        ...

    def wake(self, left: dict[str, Any]) -> None:
        """Take over what `rest` gave."""
        ...


_CREATE = "OCI runtime create failed: "
_EXEC = "exec failed: "


def start_failed(number: int, program: str, detail: str = "") -> StartFailed:
    """Give the error for an execve(2) of `program` that failed with errno `number`, worded as containerd's users know it."""
    if number == errno.ENOENT:
        return _failed(127, f'exec: "{program}": ' + _missing(program))
    if number in (errno.EACCES, errno.EISDIR, errno.EPERM):
        return _failed(126, f'exec: "{program}": permission denied')
    if number == errno.ENOEXEC:
        return _failed(126, f'exec: "{program}": exec format error')
    return _failed(128, f'exec: "{program}": {detail or os.strerror(number).lower()}')


def _missing(program: str) -> str:
    return f"stat {program}: no such file or directory" if "/" in program else "executable file not found in $PATH"


def _failed(code: int, text: str) -> StartFailed:
    return StartFailed(code, REASON, f"{_CREATE}unable to start container process: {text}")


def failed_from_text(text: str) -> StartFailed:
    """Give the error for what another runtime said: only its words tell the causes apart."""
    lower = text.lower()
    if "executable file" in lower and "not found" in lower:
        code = 127
    elif "exec:" in lower or "open executable" in lower or "exec " in lower:
        code = (
            127
            if "no such file or directory" in lower
            else 126
            if "permission denied" in lower or "format error" in lower
            else 128
        )
    else:
        code = 128
    return StartFailed(code, REASON, f"{_CREATE}{text}")


def of_exec(error: WherryError) -> WherryError:
    """Give the error for a process that was to join a container, in the words by which clients know that a shell is missing."""
    if not isinstance(error, StartFailed):
        return error
    text = str(error).removeprefix(_CREATE).removeprefix(_EXEC)
    return StartFailed(error.exit_code, error.reason, f"OCI runtime exec failed: {_EXEC}{text}")


def merged_process(bundle: str, override: dict[str, Any]) -> dict[str, Any]:
    """Give the full OCI process for an exec: the container's own, with what `override` says in its place.

    Environment entries are merged by name; the terminal is never inherited.
    """
    with open(os.path.join(bundle, "config.json"), "rb") as file:
        own: dict[str, Any] = jsonlite.loads(file.read())["process"]
    base = {key: value for key, value in own.items() if key not in ("args", "terminal", "consoleSize", "commandLine")}
    merged = base | {key: value for key, value in override.items() if value is not None}
    environment = dict(item.partition("=")[::2] for item in own.get("env", []))
    environment |= dict(item.partition("=")[::2] for item in override.get("env") or [])
    merged["env"] = [f"{name}={value}" for name, value in environment.items()]
    return merged
