"""One interface to an OCI runtime, implemented by the built-in one (internal.py) and by any other binary (external.py).

Only the type checker reads this file: `typing` is not in the processes that become monitors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from shim.monitor.console import ConsoleSocket
    from shim.monitor.protocol import ContainerCreate, ExecRequest


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
