"""The creator: makes a container step by step, and unmakes all of it when any step fails."""

from __future__ import annotations

import os

from runtime.apply.faults import Step
from runtime.caution import caution, step
from runtime.errors import HookFault, ProtocolFault, RuntimeFault
from runtime.kernel import pidfd
from runtime.kernel.fork import fork_into
from runtime.launch import gate, init, protocol, stage1
from runtime.launch.ending import end_child, end_process, remove_folder
from runtime.launch.entering import fork_init
from runtime.launch.inherited import Inherited, check_passed
from runtime.launch.outside import set_limits, write_pid_file
from runtime.launch.preload import preload_launch
from runtime.launch.sources import open_mounts
from runtime.plan.launch import LaunchPlan, plan_launch
from runtime.privilege import Standing, standing
from runtime.record import replace
from runtime.spec.words import NOTIFY
from runtime.state import CLOSED_GATE, GATE, NOTIFY_FOLDER, ContainerState, container_dir, read_file, reserve, save
from runtime.undo import Descriptors, Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.apply.cgroup import Cgroup
    from runtime.launch.protocol import Link
    from runtime.request import CreateRequest
    from runtime.spec.model import Seccomp, Spec


_NOTHING_HOLDS = (
    "Creating a rootless container with no cgroup and no private pid namespace."
    " Such configuration is strongly discouraged, as it is impossible to properly kill all container's processes"
)


def load_spec(request: CreateRequest) -> Spec:
    """Give the request's document, parsed and judged."""
    from runtime.spec.parse import parse_spec
    from runtime.spec.validate import validate

    spec = request.spec
    if spec is None:
        path = os.path.join(request.bundle, "config.json")
        with Step("read the bundle's config.json", path):
            spec = parse_spec(read_file(path))
    validate(spec)
    if os.geteuid() != 0:
        from runtime.spec.validate_rootless import validate_rootless

        validate_rootless(spec)
    return spec


def create_container(request: CreateRequest) -> ContainerState:
    """Make a container and give its state; init waits at the gate. Raises RuntimeFault with nothing left."""
    plan = plan_launch(load_spec(request), request)
    for text in plan.process.cautions:
        caution(text)
    check_passed(request.preserve_fds)
    undo = Undo()
    descriptors = Descriptors()
    try:
        state = _create(plan, undo, descriptors)
        undo.commit()
    except BaseException as error:
        for line in undo.run():
            error.add_note(f"not undone: {line}")
        if isinstance(error, HookFault):
            _after_hook_fault(plan)
        raise
    finally:
        descriptors.close()
    return state


def _after_hook_fault(plan: LaunchPlan) -> None:
    """Run the poststop hooks: the lifecycle of a container that a hook ended goes on where delete does (runtime.md)."""
    if plan.spec.hooks.poststop:
        from runtime.container import poststop

        poststop(first_state(plan, make_cgroup(plan, standing(plan.request.rootless))))


def _create(plan: LaunchPlan, undo: Undo, descriptors: Descriptors) -> ContainerState:
    folder = reserve(plan.request.state_root, plan.request.container_id)
    undo.push("the state directory", lambda: remove_folder(folder))
    rights = standing(plan.request.rootless)
    cgroup = make_cgroup(plan, rights)
    state = first_state(plan, cgroup)
    save(plan.request.state_root, state)  # before anything that outlives a killed creator is made
    _undo_mounts(state, undo)
    ours, theirs = protocol.make_links()
    inherited = Inherited(plan, theirs, cgroup, gate.listen(folder, CLOSED_GATE), rights)
    open_sources(inherited, descriptors)
    preload_launch(plan)
    undo.push("the cgroup's folders", cgroup.undo)
    cgroup.create()
    state = replace(state, cgroup=cgroup.paths)
    if not cgroup.paths and cgroup.spares and "pid" not in plan.namespaces.new:
        caution(_NOTHING_HOLDS)
    undo.push("the cgroup", cgroup.remove)
    undo.push("the link", ours.close)
    undo.push("the other end of the link", theirs.close)  # init ends when it is the last to hold that end
    undo.push("the gate", inherited.gate.close)
    inherited.unified_fd = descriptors.keep(cgroup.open_unified())
    child = _fork(inherited)
    undo.push("the first process", lambda: end_child(child))
    step(f"nsexec container setup: process {child}, new namespaces: {' '.join(plan.namespaces.new)}")
    theirs.close()
    inherited.gate.close()
    try:
        pid = _await_init(plan, ours, child, cgroup) if inherited.staged() else child
        state = _save_init(plan, state, pid, undo)
        ours.send(protocol.GO)
        step(f"child process in init(): process {state.pid} mounts and enters its root")
        state = _serve_init(plan, ours, state, cgroup)
    except ProtocolFault as fault:
        _explain(fault, cgroup)
        raise
    step("init: closing the pipe to signal completion")
    os.rename(os.path.join(folder, CLOSED_GATE), os.path.join(folder, GATE))
    if plan.request.pid_file is not None:
        write_pid_file(plan.request.pid_file, state.pid)
    ours.close()
    return replace(state, status="created")


def _explain(fault: ProtocolFault, cgroup: Cgroup) -> None:
    """Raise what ended init, where the kernel tells; the words are runc's."""
    from runtime.apply.cgroup.oom import killed

    if killed(cgroup):
        raise RuntimeFault("container init was OOM-killed (memory limit too low?)", step="create the container") from fault


def make_cgroup(plan: LaunchPlan, rights: Standing) -> Cgroup:
    """Give the cgroup the container is to have; nothing is made yet."""
    path = plan.spec.linux.cgroups_path
    if plan.request.systemd_cgroup and not plan.request.without_cgroups:
        from runtime.apply.cgroup.scope import new_scope

        return new_scope(plan.spec, plan.request.container_id, rights)
    from runtime.apply.cgroup import Cgroup, for_container

    if plan.request.without_cgroups:
        return Cgroup((), spares=True)
    return for_container(path, plan.request.container_id, spares=rights.spares_cgroups)


def first_state(plan: LaunchPlan, cgroup: Cgroup, creator: int = 0) -> ContainerState:
    """Give the container's record before it has a process; `creator` is the caller's id, as the host counts."""
    creator = creator or os.getpid()
    own = pidfd.stat(creator)
    seccomp = plan.spec.linux.seccomp
    return ContainerState(
        oci_version=plan.spec.oci_version,
        id=plan.request.container_id,
        bundle=plan.bundle,
        rootfs=plan.rootfs,
        created=now(),
        owner=_owner(),
        annotations=plan.spec.annotations,
        creator_pid=creator,
        creator_start=own[1] if own else 0,
        namespaces=plan.namespaces.private(),
        cgroup=cgroup.paths,
        spares_cgroups=cgroup.spares or None,
        unit=cgroup.unit_record,
        hooks=plan.spec.hooks,
        seccomp_flags=None if seccomp is None else seccomp.flags,
        seccomp_listener=_listener(seccomp),
        personality=plan.spec.linux.personality,
        memory_policy=plan.spec.linux.memory_policy,
        config=plan.request.config or None,
        mounts_kept=None if plan.namespaces.has("mount") else _mounts_at(plan.rootfs),
    )


def _undo_mounts(state: ContainerState, undo: Undo) -> None:
    kept = state.mounts_kept
    if kept is not None:
        from runtime.apply.hostroot import take_back

        undo.push("the mounts", lambda: take_back(state.rootfs, kept))


def _mounts_at(rootfs: str) -> int:
    from runtime.apply.hostroot import count_mounts

    return count_mounts(rootfs)


def _listener(seccomp: Seccomp | None) -> tuple[str, str] | None:
    """Give the path and the metadata of the agent that answers for system calls, when any is to be answered for."""
    if seccomp is None or not any(rule.action == NOTIFY for rule in seccomp.syscalls):
        return None
    return seccomp.listener_path, seccomp.listener_metadata


def now() -> str:
    """Give the time as RFC 3339 with nanoseconds, in UTC."""
    import time

    moment = time.time_ns()
    second, fraction = divmod(moment, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)) + f".{fraction:09d}Z"


def _owner() -> str:
    uid = os.getuid()
    if uid == 0:
        return "root"
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def open_sources(inherited: Inherited, descriptors: Descriptors) -> None:
    """Open what the container takes from the host, as the caller and before any namespace is entered."""
    plan = inherited.plan
    if plan.request.notify:
        os.mkdir(os.path.join(container_dir(plan.request.state_root, plan.request.container_id), NOTIFY_FOLDER), 0o755)
    for kind, path in plan.namespaces.paths:
        with Step(f"open the {kind} namespace", path):
            inherited.namespace_fds.append((kind, descriptors.keep(os.open(path, os.O_RDONLY | os.O_CLOEXEC))))
        if kind == "mount":
            _require_other_mounts(path, inherited.namespace_fds[-1][1])
        if kind == "network" and plan.spec.linux.sysctl:
            from runtime.apply.sysctl import require_other_network

            require_other_network(plan.spec.linux.sysctl, inherited.namespace_fds[-1][1])
    if plan.namespaces.user_path:
        with Step("open the user namespace", plan.namespaces.user_path):
            inherited.user_fd = descriptors.keep(os.open(plan.namespaces.user_path, os.O_RDONLY | os.O_CLOEXEC))
    if not inherited.standing.user:
        open_mounts(inherited, descriptors.keep)


def _require_other_mounts(path: str, namespace_fd: int) -> None:
    """Refuse a mount namespace that is the runtime's own: pivot_root(2) would take the root from the whole host."""
    if os.path.samestat(os.fstat(namespace_fd), os.stat("/proc/self/ns/mnt")):
        raise RuntimeFault("it is the runtime's own: the host would lose its root", step="join the mount namespace", path=path)


def _fork(inherited: Inherited) -> int:
    """Fork stage1 where namespaces are entered for good, else init itself."""
    staged = inherited.staged()
    if staged:
        child, inherited.placed = fork_into(inherited.unified_fd)
    else:
        child = fork_init(inherited)
    if child == 0:
        (stage1.run if staged else init.run)(inherited)
    return child


def _await_init(plan: LaunchPlan, link: Link, child: int, cgroup: Cgroup) -> int:
    """Place stage1 and write maps when asked, and give the id of the init that it forked before it ended."""
    from runtime.launch.staging import Stage

    stage = Stage(link, child)
    try:
        kind, payload = stage.receive(protocol.PLACE, protocol.MAP, protocol.CHILD)
        if kind == protocol.PLACE:
            cgroup.place(child)
            link.send(protocol.PLACED)
            kind, payload = stage.receive(protocol.MAP, protocol.CHILD)
        if kind == protocol.MAP:
            write_maps(plan, child)
            link.send(protocol.MAPPED)
            kind, payload = stage.receive(protocol.CHILD)
    finally:
        stage.close()
    os.waitpid(child, 0)
    return int(payload)


def _save_init(plan: LaunchPlan, state: ContainerState, pid: int, undo: Undo) -> ContainerState:
    """Save init's id before init is let run."""
    found = pidfd.stat(pid)
    if found is None:
        raise RuntimeFault("init ended before it began", step="create the container")
    undo.push("init", lambda: end_process(pid, found[1]))
    state = replace(state, pid=pid, start_time=found[1])
    if plan.spec.linux.intel_rdt is not None:
        from runtime.apply.resctrl import join, leave

        joined = join(plan.spec.linux.intel_rdt, state.id, pid)
        undo.push("the resctrl group", lambda: leave(joined[1:]))
        state = replace(state, resctrl=joined)
    save(plan.request.state_root, state)
    return state


def write_maps(plan: LaunchPlan, pid: int) -> None:
    """Write the id maps and clock offsets of a process that has just made its user or time namespace."""
    namespaces = plan.namespaces
    if namespaces.time_offsets:
        _write_proc(pid, "timens_offsets", namespaces.time_offsets)
    if namespaces.uid_map and os.geteuid() != 0:
        from runtime.launch.idtools import write_own_maps

        write_own_maps(namespaces, pid)
    elif namespaces.uid_map:
        _write_proc(pid, "uid_map", namespaces.uid_map)
        _write_proc(pid, "gid_map", namespaces.gid_map)


def _write_proc(pid: int, name: str, text: str) -> None:
    path = f"/proc/{pid}/{name}"
    with Step(f"write {name}", path):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def _serve_init(plan: LaunchPlan, link: Link, state: ContainerState, cgroup: Cgroup) -> ContainerState:
    """Do for init what it cannot do itself, until it waits at the gate."""
    folder = container_dir(plan.request.state_root, plan.request.container_id)
    if not plan.request.without_cgroups:
        cgroup.apply(plan.spec.linux.resources)  # while init mounts; devices wait until it has made its nodes
        give_cgroup(plan, cgroup, state.pid)
    compiled = compile_filter(plan.spec.linux.seccomp, folder)
    if plan.has_runtime_hooks():
        _await(plan, link, state.pid, protocol.MOUNTED)
        runtime_hooks(plan, state.pid)
        link.send(protocol.HOOKED)
    _await(plan, link, state.pid, protocol.CONFINE)
    set_limits(state.pid, plan.process.rlimits)
    cgroup.apply_devices(plan.spec.linux.resources.devices)
    link.send(protocol.CONFINED, compiled)
    kind, payload = link.receive(protocol.READY, protocol.LISTENER)
    if kind == protocol.LISTENER:
        from runtime.launch.agent import hand_over

        hand_over(state, state.pid, int(payload), "creating")
        link.send(protocol.TAKEN)
        link.receive(protocol.READY)
    cgroup.release()
    return state


def give_cgroup(plan: LaunchPlan, cgroup: Cgroup, pid: int) -> None:
    """Let the container's user own its cgroup where the document shows it for writing."""
    if plan.gives_cgroup():
        from runtime.apply.cgroup.owner import give

        give(cgroup, pid, plan.process.source.user.uid)


def _await(plan: LaunchPlan, link: Link, pid: int, wanted: bytes) -> None:
    """Wait until init says `wanted` and do what it asks for before."""
    while True:
        kind, payload = link.receive(wanted, protocol.NETWORK, protocol.SOURCE)
        if kind == wanted:
            return
        from runtime.launch.requests import serve

        serve(plan, link, pid, kind, payload)


def compile_filter(seccomp: Seccomp | None, folder: str) -> bytes:
    """Give the CONFINED payload of a profile and keep it for later execs; nothing without a profile."""
    if seccomp is None:
        return b""
    from runtime.kernel.seccomp import FILTER_FLAGS
    from runtime.plan.seccomp import compile_filter as compile_profile
    from runtime.state import FILTER_FILE, write_file

    flags = sum(FILTER_FLAGS[flag] for flag in seccomp.flags)
    if _listener(seccomp) is not None:
        flags = flags & ~FILTER_FLAGS["SECCOMP_FILTER_FLAG_TSYNC"] | FILTER_FLAGS["SECCOMP_FILTER_FLAG_NEW_LISTENER"]
    step(f"seccomp filter flags: {flags & ~FILTER_FLAGS['SECCOMP_FILTER_FLAG_TSYNC']}")
    payload = flags.to_bytes(8, "little") + compile_profile(seccomp)
    path = os.path.join(folder, FILTER_FILE)
    with Step("keep the seccomp filter for later", path):
        write_file(path, payload)
    return payload


def runtime_hooks(plan: LaunchPlan, pid: int) -> None:
    """Run the prestart and createRuntime hooks; raise HookFault."""
    from runtime.launch.hooks import run_hooks

    state = init.hook_state(plan, pid, "creating")
    run_hooks("prestart", plan.spec.hooks.prestart, state)
    run_hooks("createRuntime", plan.spec.hooks.create_runtime, state)
