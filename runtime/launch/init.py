"""init: from a process in fresh namespaces to the user's program, in order. Read it with runtime.launch.protocol."""

from __future__ import annotations

import os

from runtime.apply.faults import Step
from runtime.apply.labels import open_label
from runtime.jsonlite import dumps
from runtime.kernel import prctl
from runtime.launch import console as consoles
from runtime.launch import gate, protocol, root
from runtime.launch.becoming import become_root, join_keyring, set_scheduling, split_filter
from runtime.launch.entering import adjust_oom_score, enter_as_init, leave_affinity
from runtime.launch.guarded import guarded
from runtime.launch.inherited import close_others, passed, settle
from runtime.launch.outside import set_limits
from runtime.launch.preload import forbid_imports
from runtime.launch.program import Program
from runtime.launch.sources import open_mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from runtime.apply.paths import RootPaths
    from runtime.launch.inherited import Inherited
    from runtime.launch.protocol import Link
    from runtime.plan.launch import LaunchPlan


def run(inherited: Inherited) -> NoReturn:
    """Be init, forked by the creator; never returns: the process becomes the user's program or ends."""

    def work() -> None:
        os.close(settle(inherited.descriptors()))
        _enter_namespaces(inherited)
        inherited.link.receive(protocol.GO)
        _live(inherited)

    guarded(inherited.link, work)


def _enter_namespaces(inherited: Inherited) -> None:
    adjust_oom_score(inherited.plan.process.source.oom_score_adj)
    inherited.cgroup.enter(placed=inherited.placed)
    leave_affinity()
    enter_as_init(inherited)


def run_forked(inherited: Inherited) -> NoReturn:
    """Be init, forked by stage1 inside its namespaces."""

    def work() -> None:
        inherited.link.receive(protocol.GO)
        _live(inherited)

    guarded(inherited.link, work)


def run_alone(inherited: Inherited) -> None:
    """Go on as init, where no creator is (runtime.launch.alone)."""
    forbid_imports()
    _enter_namespaces(inherited)
    _live(inherited)


def _live(inherited: Inherited) -> None:
    starter, program = _until_gate(inherited)
    _after_gate(inherited, starter, program)


def _until_gate(inherited: Inherited) -> tuple[Link, Program]:
    plan, link = inherited.plan, inherited.link
    task_fd = os.open("/proc/self/task", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    inherited.task_fd = task_fd
    prctl.set_name("wherry:[init]")
    os.setsid()
    if not plan.request.no_new_keyring:
        join_keyring(f"_ses.{plan.request.container_id}", plan.process.source.selinux_label)
    if "network" in plan.namespaces.new:
        from runtime.kernel.loopback import loopback_up

        with Step("set the loopback interface up"):
            loopback_up()
    if plan.spec.linux.net_devices:
        link.send(protocol.NETWORK)
        link.receive(protocol.MOVED)
    label_fd = open_label(plan.process.source)
    console = _prepare_root(inherited)
    consoles.place_stdio(inherited.stdio)
    if console is not None:
        if inherited.console_socket is not None:
            consoles.hand_over(console, inherited.console_socket)
        consoles.take_over(console)
    program = Program(plan.process)
    program.filter, program.filter_flags = split_filter(_confinement(inherited))
    program.label_fd = label_fd
    program.find()
    set_scheduling(plan.process.source, plan.spec.linux.personality, plan.spec.linux.memory_policy)
    program.become()
    gate_fd = inherited.gate.fileno()
    kept = {label_fd, task_fd if plan.spec.hooks.start_container else -1} - {-1}
    close_others({0, 1, 2, link.socket.fileno(), gate_fd, *passed(inherited.preserve_fds), *kept})
    if inherited.standing.user:
        # else its own user can neither exec here before start nor take the seccomp listener; nothing of the host's is left
        prctl.set_dumpable(dumpable=True)
        program.traceable = True
    gate.end_when_told()
    if _listens_early(inherited, program):
        os.close(program.confine(link))  # the agent's end is to be the end
    link.send(protocol.READY, _cgroups(inherited))
    link.close()
    return gate.wait(inherited.gate), program


def _listens_early(inherited: Inherited, program: Program) -> bool:
    """Tell whether the agent is told now."""
    profile = inherited.plan.spec.linux.seccomp
    if profile is None or not program.has_listener():
        return False
    from runtime.plan.waiting import can_wait_under

    return can_wait_under(profile)


def _confinement(inherited: Inherited) -> bytes:
    """Have the limits set, and give the seccomp filter's payload."""
    if inherited.filter is not None:
        set_limits(0, inherited.plan.process.rlimits)
        return inherited.filter
    inherited.link.send(protocol.CONFINE)
    return inherited.link.receive(protocol.CONFINED)[1]


def _cgroups(inherited: Inherited) -> bytes:
    """Give what a caller who is no creator cannot know of its own."""
    return b"" if inherited.filter is None else dumps(dict(inherited.cgroup.paths)).encode()


def _after_gate(inherited: Inherited, starter: Link, program: Program) -> None:
    inherited.link = starter

    def work() -> None:
        hooks = inherited.plan.spec.hooks.start_container
        if hooks:
            from runtime.launch.hooks import run_hooks

            program.confine(starter)  # the hooks' programs are the container's, and are held to its profile
            state = hook_state(inherited.plan, os.getpid(), "created")
            run_hooks("startContainer", hooks, state, task_fd=inherited.task_fd, environment=program.environment)
        program.execute(starter)

    inherited.gate.close()
    guarded(starter, work)


def hook_state(plan: LaunchPlan, pid: int, status: str) -> str:
    """Give the state hooks read on standard input."""
    return dumps(
        {
            "ociVersion": plan.spec.oci_version,
            "id": plan.request.container_id,
            "status": status,
            "pid": pid,
            "bundle": plan.bundle,
            "annotations": dict(plan.spec.annotations),
        }
    )


def _prepare_root(inherited: Inherited) -> consoles.Console | None:
    plan = inherited.plan
    null_fd = root.open_null()
    if inherited.standing.user:
        open_mounts(inherited, _keep)
    paths = root.attach_root(inherited)
    if plan.namespaces.in_user_namespace():
        become_root()
    root.fill_root(inherited, paths)
    console = None
    if plan.process.source.terminal:
        console = consoles.open_console(paths, plan.process.source.console_size)
        consoles.bind_console(paths, console)
    root.make_working_directory(plan, paths)
    _create_hooks(inherited, paths)
    _names_and_parameters(plan)
    if inherited.filter is not None:  # no creator does it; from inside the root the cgroup is out of reach
        inherited.cgroup.apply_devices(plan.spec.linux.resources.devices)
    _enter(plan, paths, null_fd)
    return console


def _keep(fd: int) -> int:
    """Leave a descriptor open: what is not attached goes with the others, before the program runs."""
    return fd


def _enter(plan: LaunchPlan, paths: RootPaths, null_fd: int) -> None:
    root.protect_root(plan, paths, null_fd)
    os.close(null_fd)
    root.enter_root(plan, paths)


def _create_hooks(inherited: Inherited, paths: RootPaths) -> None:
    plan, link = inherited.plan, inherited.link
    if plan.has_runtime_hooks():
        link.send(protocol.MOUNTED)
        link.receive(protocol.HOOKED)
    if plan.spec.hooks.create_container:
        from runtime.launch.hooks import run_hooks

        os.fchdir(paths.root_fd)  # as with runc, whose users' hooks name files of the root relative to it
        state = hook_state(plan, os.getpid(), "creating")
        run_hooks("createContainer", plan.spec.hooks.create_container, state, task_fd=inherited.task_fd)


def _names_and_parameters(plan: LaunchPlan) -> None:
    if plan.spec.hostname or plan.spec.domainname:
        from runtime.kernel import uts

        with Step("set the host name"):
            if plan.spec.hostname:
                uts.sethostname(plan.spec.hostname)
            if plan.spec.domainname:
                uts.setdomainname(plan.spec.domainname)
    if plan.spec.linux.sysctl:
        from runtime.apply.sysctl import write_sysctls

        write_sysctls(plan.spec.linux.sysctl)
