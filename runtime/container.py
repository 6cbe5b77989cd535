"""What can be done with a container that exists: start, kill, delete, list its processes, pause, resume, update."""

from __future__ import annotations

import os

from runtime.caution import caution
from runtime.errors import HookFault, KernelFault, NotFoundFault, RuntimeFault, StateFault
from runtime.kernel import pidfd
from runtime.launch.ending import end_process, remove_folder
from runtime.state import GATE, HELD_GATE, ContainerState, alive, container_dir, load, read_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.apply.cgroup import Cgroup
    from runtime.spec.resources import Resources

_SIGKILL = 9


_NOT_STARTED = {"stopped": "a container that has stopped", "paused": "a container in the paused state"}


def start_container(state_root: str, container_id: str) -> None:
    """Open the gate; raise StateFault for a container that is not `created`, and the fault that kept the program away."""
    from runtime.launch.gate import open_gate

    folder = container_dir(state_root, container_id)
    state = read_record(folder, container_id)
    try:
        open_gate(folder, container_id)
    except StateFault:
        status = load(state_root, container_id).status
        known = _NOT_STARTED.get(status, "an already running container")
        raise StateFault(f"cannot start {known}: {container_id!r} is {status}, not created") from None
    try:  # noqa: SIM105 - contextlib costs an import
        os.unlink(os.path.join(folder, GATE))
    except FileNotFoundError:
        pass
    if state.hooks.poststart:
        _poststart(state)


def _poststart(state: ContainerState) -> None:
    """Run the poststart hooks; one that fails stops the container and is raised (runtime-spec 1.3, "Lifecycle")."""
    from runtime.launch.hooks import run_hooks

    try:
        run_hooks("poststart", state.hooks.poststart, _hook_state(state, "running"))
    except HookFault:
        _end_all(state)
        raise


def _end_all(state: ContainerState) -> None:
    """Kill every process of the container."""
    group = _cgroup(state)
    if group is not None and group.exists():
        group.kill_all()
    if state.pid:
        end_process(state.pid, state.start_time)


def poststop(state: ContainerState) -> None:
    """Run hooks whose failure changes nothing (runtime-spec: log a warning and continue)."""
    if not state.hooks.poststop:
        return
    from runtime.launch.hooks import run_hooks_to_the_end

    for line in run_hooks_to_the_end("poststop", state.hooks.poststop, _hook_state(state, "stopped")):
        caution(line)


def _hook_state(state: ContainerState, status: str) -> str:
    from runtime.jsonlite import dumps

    return dumps(
        {
            "ociVersion": state.oci_version,
            "id": state.id,
            "status": status,
            "pid": state.pid if status != "stopped" else 0,
            "bundle": state.bundle,
            "annotations": dict(state.annotations),
        }
    )


def _cgroup(state: ContainerState) -> Cgroup | None:
    if not state.cgroup:
        return None
    from runtime.apply.cgroup import from_state

    return from_state(state)


def _need_cgroup(state: ContainerState) -> Cgroup:
    group = _cgroup(state)
    if group is None:
        raise StateFault(f"cgroups not configured for container {state.id!r}: it was made without permission to write them")
    return group


def kill_container(state_root: str, container_id: str, signal: int, *, all_processes: bool) -> None:
    """Send a signal; raise StateFault for a container that has ended.

    A container that shares its PID namespace does not end with its init, so SIGKILL goes to every process then.
    """
    state = load(state_root, container_id)
    everyone = all_processes or (signal == _SIGKILL and "pid" not in state.namespaces and _has_processes(state))
    if state.status in ("stopped", "creating") and not everyone:
        raise StateFault(f"cannot kill container {container_id!r}: container not running")
    if everyone:
        _signal_all(state, signal)
        return
    _signal_init(state, signal)
    if signal == _SIGKILL and state.status == "paused":
        _need_cgroup(state).thaw()  # a frozen process of a v1 cgroup does not even die


def _signal_init(state: ContainerState, signal: int) -> None:
    fd = pidfd.open_process(state.pid, state.start_time)
    if fd is None:
        raise StateFault(f"cannot kill container {state.id!r}: container not running")
    try:
        pidfd.send_signal(fd, signal)
    except OSError as error:
        raise RuntimeFault.from_os(error, f"send signal {signal} to {state.pid}") from error
    finally:
        os.close(fd)


def _has_processes(state: ContainerState) -> bool:
    """Tell whether anything runs in the cgroup; without a PID namespace some may outlive init."""
    group = _cgroup(state)
    return group is not None and group.exists() and bool(group.pids())


def _signal_all(state: ContainerState, signal: int) -> None:
    group = _cgroup(state)
    if group is not None:
        group.kill_all(signal)
    elif pidfd.stat(state.pid) is not None:
        _signal_init(state, signal)


def delete_container(state_root: str, container_id: str, *, force: bool) -> None:
    """Remove a container in whatever state it is; only `force` ends a program that runs."""
    folder = container_dir(state_root, container_id)
    try:
        state = load(state_root, container_id)
    except NotFoundFault:
        if force:
            return
        raise
    except StateFault:
        if not force:
            raise
        remove_folder(folder)
        caution(f"what container {container_id!r} ran, and its cgroups, are not known any more and may be left")
        return
    abandoned = state.status == "creating" and not alive(state.creator_pid, state.creator_start)
    if state.status not in ("created", "stopped") and not abandoned and not force:
        raise StateFault(f"cannot delete container {container_id} that is not stopped: {state.status}")
    group = _cgroup(state)
    if group is not None and group.exists() and state.status == "paused":
        kill_container(state_root, container_id, _SIGKILL, all_processes=False)  # thaws it too
    _end_all(state)
    if group is not None:
        group.remove()
    if state.resctrl is not None:
        from runtime.apply.resctrl import leave

        leave(state.resctrl[1:])
    if state.mounts_kept is not None:
        from runtime.apply.hostroot import take_back

        take_back(state.rootfs, state.mounts_kept)
    poststop(state)
    remove_folder(folder)


def processes(state_root: str, container_id: str) -> list[int]:
    """Give the ids of the processes of the container."""
    return list(_need_cgroup(load(state_root, container_id)).pids())


def freeze(state_root: str, container_id: str) -> None:
    """Freeze a created or running container; raise StateFault for any other."""
    state = load(state_root, container_id)
    if state.status not in ("created", "running"):
        raise StateFault(f"cannot pause container {container_id!r}: container not running: it is {state.status}")
    group, gates = _need_cgroup(state), _gates(state_root, container_id)
    if state.status == "created":
        os.rename(*gates)  # whoever would start it might wait for ever
    try:
        group.freeze()
    except BaseException:
        _move_back(gates)
        raise


def _gates(state_root: str, container_id: str) -> tuple[str, str]:
    """Give where the gate is while the container may be started, and where while it is paused."""
    folder = container_dir(state_root, container_id)
    return os.path.join(folder, GATE), os.path.join(folder, HELD_GATE)


def _move_back(gates: tuple[str, str]) -> None:
    try:  # noqa: SIM105 - contextlib costs an import
        os.rename(*reversed(gates))
    except FileNotFoundError:
        pass


def thaw(state_root: str, container_id: str) -> None:
    """Let a paused container run on; raise StateFault for any other."""
    state = load(state_root, container_id)
    if state.status != "paused":
        raise StateFault(f"cannot resume container {container_id!r}: container not paused: it is {state.status}")
    _need_cgroup(state).thaw()
    _move_back(_gates(state_root, container_id))


def update_resources(state_root: str, container_id: str, resources: Resources) -> None:
    """Apply other limits to a container that has not ended."""
    state = load(state_root, container_id)
    if state.status == "stopped":
        raise StateFault(f"cannot update container {container_id!r}: container not running: it is stopped")
    from runtime.apply.cgroup.present import completed, require_more_than_used
    from runtime.spec.resources import as_meant

    group = _need_cgroup(state)
    if resources.memory.check_before_update:
        require_more_than_used(group, resources.memory)
    group.apply(completed(group, as_meant(resources, state.oci_version)))
    if resources.devices:
        group.apply_devices(resources.devices)


def update_schemata(state_root: str, container_id: str, lines: tuple[str, ...]) -> None:
    """Write other lines into the schemata of the container's resctrl group; raise KernelFault, StateFault or CgroupFault."""
    from runtime.apply.resctrl import change, mounted

    if mounted() is None:
        raise KernelFault("l3 cache schema and memory bandwidth schema are not enabled", feature="resctrl", step="Intel RDT")
    state = load(state_root, container_id)
    if state.resctrl is None:
        raise StateFault("updating a non-existent Intel RDT configuration is not supported")
    change(state.resctrl[0], lines)
