"""The runtime's operations: what `wherry-oci` and the pod monitors call.

Synchronous, for a process without threads; every function raises a RuntimeFault and then nothing it made is left. A process
that creates or executes and wants to wait for the program must be its parent or a child subreaper (prctl(2)): the program's
own parent is gone by the time these functions return.
"""

from __future__ import annotations

from runtime.request import CreateRequest, ExecRequest, RootfsMount
from runtime.state import ContainerState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.checkpoint.request import DumpRequest, RestoreRequest
    from runtime.spec.resources import Resources

__all__ = [
    "ContainerState",
    "CreateRequest",
    "ExecRequest",
    "RootfsMount",
    "checkpoint",
    "create",
    "delete",
    "exec_process",
    "kill",
    "list_containers",
    "pause",
    "ps",
    "restore",
    "resume",
    "start",
    "state",
    "update",
]


def create(request: CreateRequest) -> ContainerState:
    """Make the container and return when its init waits at the gate; its state was saved before init was let run."""
    from runtime.launch.creator import create_container

    return create_container(request)


def start(state_root: str, container_id: str) -> None:
    """Open the gate and return after a successful execve(2); raise StartFault with errno and path otherwise."""
    from runtime.container import start_container

    start_container(state_root, container_id)


def state(state_root: str, container_id: str) -> ContainerState:
    """Give the container's present state; raise NotFoundFault."""
    from runtime.state import load

    return load(state_root, container_id)


def list_containers(state_root: str) -> list[ContainerState]:
    """Give every container below `state_root`; one whose record cannot be read is left out."""
    from runtime.state import load_all

    return load_all(state_root)


def kill(state_root: str, container_id: str, signal: int, *, all_processes: bool = False) -> None:
    """Send `signal` to init, or to every process of the container; raise StateFault when it does not run."""
    from runtime.container import kill_container

    kill_container(state_root, container_id, signal, all_processes=all_processes)


def delete(state_root: str, container_id: str, *, force: bool = False) -> None:
    """Remove a created or stopped container and what belongs to it; with `force` a running one too, an absent one quietly."""
    from runtime.container import delete_container

    delete_container(state_root, container_id, force=force)


def exec_process(request: ExecRequest) -> int:
    """Run one more process in the container and give its process id after a successful execve(2)."""
    from runtime.launch.setns import exec_in_container

    return exec_in_container(request)


def ps(state_root: str, container_id: str) -> list[int]:
    """Give the ids of the processes in the container's cgroup."""
    from runtime.container import processes

    return processes(state_root, container_id)


def pause(state_root: str, container_id: str) -> None:
    """Freeze every process of the container."""
    from runtime.container import freeze

    freeze(state_root, container_id)


def resume(state_root: str, container_id: str) -> None:
    """Let a paused container run on."""
    from runtime.container import thaw

    thaw(state_root, container_id)


def update(state_root: str, container_id: str, resources: Resources) -> None:
    """Apply other resource limits."""
    from runtime.container import update_resources

    update_resources(state_root, container_id, resources)


def checkpoint(request: DumpRequest) -> None:
    """Write a container into images of criu; it is gone afterwards, unless the request lets it run on."""
    from runtime.checkpoint.dump import dump

    dump(request)
    if not (request.leave_running or request.pre_dump):
        delete(request.state_root, request.container_id, force=True)


def restore(request: RestoreRequest) -> ContainerState:
    """Make a container from images: it runs when this returns, its init a child of the caller."""
    from runtime.checkpoint.restore import restore as restore_container

    return restore_container(request)
