"""One more process in a running container: join what its init has, and execute. Read it with runtime.launch.protocol."""

from __future__ import annotations

import os
from errno import EBUSY, ENOENT

from runtime.apply.faults import Step
from runtime.apply.labels import new_proc, open_label_in, open_proc
from runtime.apply.paths import RootPaths
from runtime.caution import caution, followed, step
from runtime.errors import NotFoundFault, RuntimeFault, StateFault
from runtime.kernel import capability, pidfd, prctl
from runtime.kernel.fork import fork, fork_into
from runtime.kernel.namespace import CLONE_NEWPID, CLONE_NEWUSER, FLAGS, setns
from runtime.launch import console as consoles
from runtime.launch import protocol
from runtime.launch.becoming import become_root, join_keyring, set_scheduling, split_filter
from runtime.launch.ending import end_process
from runtime.launch.entering import adjust_oom_score, enter_cgroup, leave_affinity, run_on
from runtime.launch.guarded import guarded
from runtime.launch.inherited import check_passed, close_others, passed, settle
from runtime.launch.outside import set_limits, write_pid_file
from runtime.launch.preload import preload_process
from runtime.launch.program import Program
from runtime.plan.process import ProcessPlan, plan_process
from runtime.privilege import in_user_namespace
from runtime.record import replace
from runtime.state import FILTER_FILE, ContainerState, container_dir, load, present, read_file
from runtime.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from runtime.apply.cgroup import Cgroup
    from runtime.launch.protocol import Link
    from runtime.request import ExecRequest
    from runtime.spec.model import Process

_OWN_PROC = -2
"""In place of the host's procfs: one of the container's PID namespace, made by the process that needs it."""


class Exec:
    """What the processes of an exec have from their creator."""

    __slots__ = ("cgroup", "container", "filter", "link", "placed", "plan", "request", "target")

    def __init__(self, request: ExecRequest, container: ContainerState, plan: ProcessPlan, link: Link) -> None:
        self.request = request
        self.container = container
        self.plan = plan
        self.link = link
        self.cgroup: Cgroup | None = None
        self.filter: bytes | None = None
        """The seccomp filter, when the process needs nothing from its creator any more: no privilege, nobody to follow it."""
        self.target = -1
        self.placed = False

    def descriptors(self) -> set[int]:
        """Give every descriptor the children need."""
        wanted = {0, 1, 2, self.link.socket.fileno(), self.target, *(self.request.stdio or ())}
        wanted.update(passed(self.request.preserve_fds))
        if self.request.console_socket is not None:
            wanted.add(self.request.console_socket)
        return wanted


def exec_in_container(request: ExecRequest) -> int:
    """Run the request's process and give its id; raise RuntimeFault, and then nothing of it runs."""
    steps = exec_steps(request)
    while True:
        try:
            next(steps)  # what follows waits by itself
        except StopIteration as stop:
            return int(stop.value)


class Decided:
    """What an exec decides before it does anything; the same command may run again by it."""

    __slots__ = ("container", "plan")

    def __init__(self, request: ExecRequest) -> None:
        from runtime.spec.validate import validate_process

        process = _effective(request)
        validate_process(process)
        if os.geteuid() != 0:
            from runtime.spec.validate_rootless import validate_rootless_process

            validate_rootless_process(process, "")
        self.plan = plan_process(process)
        self.container = load(request.state_root, request.container_id)


def exec_steps(request: ExecRequest, decided: Decided | None = None) -> Generator[int, None, int]:
    """Do the same for a caller with other things to do: yields the descriptor that will be readable when it can go on.

    `decided`: what such a request has decided before, for a caller who runs one again and again. Closing the generator takes
    everything back.
    """
    if decided is None:
        decided = Decided(request)
        container = decided.container
    else:
        container = present(request.state_root, decided.container)
    for text in decided.plan.cautions:
        caution(text)
    check_passed(request.preserve_fds)
    if container.status == "paused" and not request.ignore_paused:
        raise StateFault("cannot exec in a paused container (use --ignore-paused to override)")
    target = pidfd.open_process(container.pid, container.start_time)
    if target is None:
        raise StateFault(f"cannot exec in a stopped container: {request.container_id!r} is {container.status}")
    undo = Undo()
    try:
        pid = yield from _exec(request, container, decided.plan, target, undo)
        undo.commit()
    except BaseException as error:
        for line in undo.run():
            error.add_note(f"not undone: {line}")
        raise
    finally:
        os.close(target)
    return pid


def _effective(request: ExecRequest) -> Process:
    process = request.process
    if request.no_new_privs is not None:
        process = replace(process, no_new_privileges=request.no_new_privs)
    if request.apparmor is not None:
        process = replace(process, apparmor_profile=request.apparmor)
    if request.process_label is not None:
        process = replace(process, selinux_label=request.process_label)
    return process


def _exec(
    request: ExecRequest, container: ContainerState, plan: ProcessPlan, target: int, undo: Undo
) -> Generator[int, None, int]:
    ours, theirs = protocol.make_links()
    undo.push("the link", ours.close)
    job = Exec(request, container, plan, theirs)
    job.target = target
    job.cgroup = _cgroup(request, container)
    compiled = _filter(request, container)
    preload_process(plan, seccomp=bool(compiled))
    if container.personality or container.memory_policy:
        import runtime.apply.scheduling  # noqa: F401 - the container's own, which the process's plan does not name
    if "user" in container.namespaces or "time" in container.namespaces or _may_trace(container) or in_user_namespace():
        pid = yield from _fork_twice(job, ours, undo)
    else:
        job.filter = None if followed() else compiled
        pid = _fork_inside(job)
        theirs.close()
    found = pidfd.stat(pid)
    if found is None:
        raise NotFoundFault("the process ended before it began", step="exec")
    undo.push("the process", lambda: end_process(pid, found[1]))
    if job.filter is None:
        yield from _serve_process(job, ours, pid, compiled)
    yield ours.socket.fileno()
    _await_execve(ours, container, pid)
    if request.pid_file is not None:
        write_pid_file(request.pid_file, pid)
    ours.close()
    return pid


def _serve_process(job: Exec, link: Link, pid: int, compiled: bytes) -> Generator[int, None, None]:
    """Do for the process what it may not do itself, once it is in a user namespace."""
    step(f"nsexec container setup: process {pid} in the namespaces of process {job.container.pid}")
    set_limits(pid, job.plan.rlimits)
    link.send(protocol.GO)
    step("child process in init()")
    yield link.socket.fileno()
    link.receive(protocol.CONFINE)
    if followed():
        step(f"nsexec[{pid}]: affinity: {sum(1 << cpu for cpu in os.sched_getaffinity(pid)):#x}")
    link.send(protocol.CONFINED, compiled)
    step("setns_init: about to exec")


def _may_trace(container: ContainerState) -> bool:
    return bool(capability.within_reach(container.pid) >> capability.CAP_SYS_PTRACE & 1)


def _fork_inside(job: Exec) -> int:
    """Fork into the container's PID namespace and come back from it: then one process is enough.

    It is there before it has settled, so already the creator must not be traceable.
    """
    prctl.set_dumpable(dumpable=False)
    own = -1
    pid = -1
    try:
        if "pid" in job.container.namespaces:
            own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            with Step(f"join the PID namespace of container {job.container.id!r}"):
                setns(job.target, CLONE_NEWPID)
        pid = _fork_placed(job)
        if pid == 0:
            guarded(job.link, lambda: _inside(job))
    finally:
        if own >= 0:
            setns(own, CLONE_NEWPID)
            os.close(own)
    return pid


def _fork_placed(job: Exec) -> int:
    """Fork into the container's v2 cgroup, or into init's where init has moved on and that takes no process any more.

    It does not once init has handed controllers down from it (cgroups(7), no internal processes), or has removed it.
    """
    try:
        return _fork_into(job)
    except OSError as error:
        only_v2 = job.cgroup is not None and len(job.cgroup.paths) == 1
        if error.errno not in (EBUSY, ENOENT) or job.request.cgroup or not only_v2:
            raise
    from runtime.apply.cgroup.processes import of_process

    job.cgroup = of_process(job.container.pid)
    return _fork_into(job)


def _fork_into(job: Exec) -> int:
    unified = -1 if job.cgroup is None else job.cgroup.open_unified()
    try:
        pid, job.placed = fork_into(unified)
    finally:
        if unified >= 0:
            os.close(unified)
    return pid


def _inside(job: Exec) -> None:
    if job.filter is not None:
        set_limits(0, job.plan.rlimits)
    task_fd, proc_fd, flags = _join(job, CLONE_NEWPID)
    os.close(task_fd)
    _process(job, joined_user=bool(flags & CLONE_NEWUSER), proc_fd=proc_fd)


def _fork_twice(job: Exec, ours: Link, undo: Undo) -> Generator[int, None, int]:
    """Let stage1 enter the namespaces and fork the process, for two reasons.

    Who has entered a user namespace does not come back, nor does root of one to the host's PID namespace. And a container with
    CAP_SYS_PTRACE could look into a process that is already among its own but has still the host's root, working directory and
    descriptors.
    """
    from runtime.launch.staging import Stage

    stage1 = _fork_placed(job)
    if stage1 == 0:
        guarded(job.link, lambda: _stage1(job))
    started = pidfd.stat(stage1)
    if started is not None:  # a caller with a loop may reap it at any moment, and its number be used again
        undo.push("the first process", lambda: end_process(stage1, started[1]))
    job.link.close()
    stage = Stage(ours, stage1)
    try:
        yield stage.fileno()
        kind, payload = stage.receive(protocol.PLACE, protocol.CHILD)
        if kind == protocol.PLACE and job.cgroup is not None:
            job.cgroup.place(stage1)
            ours.send(protocol.PLACED)
            yield stage.fileno()
            payload = stage.receive(protocol.CHILD)[1]
    finally:
        stage.close()
    pid = int(payload)
    try:  # noqa: SIM105 - contextlib costs an import
        os.waitpid(stage1, 0)
    except ChildProcessError:
        pass  # the caller's loop was faster
    return pid


def _await_execve(link: Link, container: ContainerState, pid: int) -> None:
    """Return when the program was executed; its seccomp listener, where it has one, goes to the agent before."""
    said, payload = link.receive_any()
    if said == protocol.LISTENER:
        from runtime.launch.agent import hand_over

        hand_over(container, pid, int(payload), "running")
        link.send(protocol.TAKEN)
        said, _ = link.receive_any()
    if said:
        raise RuntimeFault(f"the process said {said!r} instead of executing the program", step="exec")


def _cgroup(request: ExecRequest, container: ContainerState) -> Cgroup | None:
    if not container.cgroup:
        return None
    from runtime.apply.cgroup import from_paths, from_state

    by_user = container.unit is not None and container.unit[2]
    group = from_state(container) if by_user else from_paths(container.cgroup, spares=bool(container.spares_cgroups))
    if group is None:
        return None
    return group.sub(request.cgroup) if request.cgroup else group


def _filter(request: ExecRequest, container: ContainerState) -> bytes:
    if container.seccomp_flags is None:
        return b""
    path = os.path.join(container_dir(request.state_root, request.container_id), FILTER_FILE)
    with Step("read the container's seccomp filter", path):
        return read_file(path)


def _join(job: Exec, joined: int = 0) -> tuple[int, int, int]:
    """Join what the container has, except what has been `joined`; give /proc/self/task, /proc for a label, what was joined."""
    task_fd = settle(job.descriptors())
    adjust_oom_score(job.plan.source.oom_score_adj)
    affinity = job.plan.source.exec_cpu_affinity
    if affinity is not None and affinity.initial:
        run_on(affinity.initial)
    if job.cgroup is not None:
        enter_cgroup(job.cgroup, job.link, placed=job.placed)
    if affinity is None:
        leave_affinity()
    proc_fd = open_proc(job.plan.source)
    flags = sum(FLAGS[kind] for kind in job.container.namespaces) & ~joined
    root = -1 if "mount" in job.container.namespaces else _open_root(job.container)
    with Step(f"join the namespaces of container {job.container.id!r}"):
        if flags:
            setns(job.target, flags)
        if root >= 0:
            os.fchdir(root)
            os.chroot(".")
            os.close(root)
    return task_fd, proc_fd, flags


def _open_root(container: ContainerState) -> int:
    """Open the root of a container that shares the host's mount namespace: joining it would lead to the host's root."""
    path = f"/proc/{container.pid}/root"
    with Step(f"open the root of container {container.id!r}", path):
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _stage1(job: Exec) -> None:
    nested = in_user_namespace()
    task_fd, proc_fd, flags = _join(job)
    joined_user = bool(flags & CLONE_NEWUSER)
    if not joined_user and not nested and proc_fd >= 0:  # its container may look into what comes now
        os.close(proc_fd)
        proc_fd = _OWN_PROC
    pid = fork(task_fd)
    if pid == 0:
        os.close(task_fd)
        guarded(job.link, lambda: _process(job, joined_user=joined_user, proc_fd=proc_fd))
    job.link.send(protocol.CHILD, str(pid).encode())


def _process(job: Exec, *, joined_user: bool, proc_fd: int) -> None:
    request, link = job.request, job.link
    label = open_label_in(job.plan.source, new_proc(job.plan.source) if proc_fd == _OWN_PROC else proc_fd)
    if job.filter is None:
        link.receive(protocol.GO)
    prctl.set_name("wherry:[exec]")
    os.setsid()
    join_keyring(f"_ses.{request.container_id}")
    if joined_user:
        become_root()
    consoles.place_stdio(request.stdio)
    if job.plan.source.terminal:
        root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        console = consoles.open_console(RootPaths(root_fd), job.plan.source.console_size)
        os.close(root_fd)
        if request.console_socket is not None:
            consoles.hand_over(console, request.console_socket)
        consoles.take_over(console)
    compiled = job.filter
    if compiled is None:
        link.send(protocol.CONFINE)
        compiled = link.receive(protocol.CONFINED)[1]
    program = Program(job.plan)
    program.filter, program.filter_flags = split_filter(compiled)
    program.label_fd = label
    program.find()
    affinity = job.plan.source.exec_cpu_affinity
    if affinity is not None and affinity.final:
        run_on(affinity.final)
    set_scheduling(job.plan.source, job.container.personality, job.container.memory_policy)
    program.become()
    close_others({0, 1, 2, link.socket.fileno(), *passed(request.preserve_fds), *({label} - {-1})})
    program.execute(link)
