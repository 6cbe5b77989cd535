"""Create a container with one fork: who prepares it is its init from the beginning. Read it with runtime.launch.init.

The usual creator forks an init because a PID namespace takes in only children, and because somebody must stay with the host's
root: to write id maps, to run hooks, to take everything back. Where nothing of that is asked for, and the caller can wait and
clean up, as a pod's monitor can, one process does:

    caller                                                            init
      │ makes the v2 cgroup
      │ ── fork, into it and a new PID namespace ────────────────────▶│ reads and judges the document, plans
      │                                                               │ saves the state, opens sources, makes the cgroups
      │                                                               │ joins them and the namespaces, mounts
      │                                                               │ device rules, enters the root, limits, ids
      │ ◀───────────────────────────────────────────────────── READY ─│ waits at the gate
      │ gives the gate its name

The caller touches no path that a user has named, so that a mount source on a dead server holds up init alone.
"""

from __future__ import annotations

import gc
import os

from runtime import jsonlite
from runtime.apply.cgroup import Cgroup, detect, for_container
from runtime.apply.cgroup import devices as _devices
from runtime.errors import RuntimeFault
from runtime.kernel import bpf as _bpf
from runtime.kernel import pidfd
from runtime.kernel.fork import fork_into
from runtime.kernel.namespace import CLONE_NEWPID, setns, unshare
from runtime.kernel.prctl import set_dumpable, set_name
from runtime.kernel.spawn import default_signals
from runtime.launch import gate, protocol
from runtime.launch.creator import compile_filter, first_state, give_cgroup, load_spec, open_sources
from runtime.launch.ending import remove_folder
from runtime.launch.guarded import guarded
from runtime.launch.inherited import Inherited, close_others
from runtime.launch.init import run_alone
from runtime.launch.preload import preload_launch
from runtime.plan import bpf as _program
from runtime.plan.cgroup import UNIFIED, cgroup_paths
from runtime.plan.launch import plan_launch
from runtime.privilege import standing
from runtime.record import replace
from runtime.state import CLOSED_GATE, GATE, container_dir, reserve, save
from runtime.undo import Descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from runtime.launch.protocol import Link
    from runtime.plan.cgroup import Layout
    from runtime.request import CreateRequest
    from runtime.spec.lasting import Pairs

_MODULES = (_devices, _bpf, _program)  # loaded before a mount namespace is entered, where nothing may be imported
_END_SECONDS = 10.0
_SIGKILL = 9


class Host:
    """What is looked at once, in a process and those forked from it: the hierarchies are mounted when the host boots."""

    layout: Layout | None = None


def look() -> Layout:
    """Give the host's hierarchies. The cgroups in them that a process is in are not to be relied on."""
    if Host.layout is None:
        Host.layout = detect()
    return Host.layout


class Alone:
    """A creation by one fork: `prepare`, then drive `steps`; where these fail, call `clear` in a process that has time.

    `directory` is where the container's v2 cgroup will be: init is born in it, because to move a running process there takes
    milliseconds. The document asks for nothing that takes a creator (runtime.plan.alone).
    """

    def __init__(self, request: CreateRequest, directory: str) -> None:
        self._request = request
        self._directory = directory
        self._pidfd = -1

    def prepare(self) -> bool:
        """Make the v2 cgroup; tell False when it is there already or cannot be made, which a creator can judge."""
        try:
            try:
                os.mkdir(self._directory, 0o755)
            except FileNotFoundError:
                os.makedirs(self._directory, 0o755)
        except OSError:
            return False
        return True

    def descriptors(self) -> tuple[int, ...]:
        """Give what `clear` needs, for a child that closes all else."""
        return (self._pidfd,) if self._pidfd >= 0 else ()

    def steps(self) -> Generator[int, None, tuple[int, Pairs]]:
        """Give init's id and its cgroups once it waits at the gate; yields the descriptor that will be readable then.

        Raises RuntimeFault; closing the generator ends init.
        """
        ours, theirs = protocol.make_links()
        try:
            pid = self._fork(theirs)
            self._pidfd = os.pidfd_open(pid)
            theirs.close()
            yield ours.socket.fileno()
            paths = jsonlite.loads(ours.receive(protocol.READY)[1])
            folder = container_dir(self._request.state_root, self._request.container_id)
            os.rename(f"{folder}/{CLOSED_GATE}", f"{folder}/{GATE}")
        except BaseException:
            if self._pidfd >= 0:
                pidfd.send_signal(self._pidfd, _SIGKILL)
            raise
        finally:
            ours.close()
            theirs.close()
        self.close()
        return pid, tuple(paths.items())

    def _fork(self, link: Link) -> int:
        """Fork into a new PID namespace, which takes in only children, and come back from it."""
        unified = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        pid = -1
        try:
            unshare(CLONE_NEWPID)
            pid, placed = fork_into(unified)
            if pid == 0:
                guarded(link, lambda: _be_init(self._request, link, placed=placed))
        except OSError as error:
            raise RuntimeFault.from_os(error, "fork init into a new PID namespace") from error
        finally:
            if pid:
                setns(own, CLONE_NEWPID)
            os.close(own)
            os.close(unified)
        return pid

    def clear(self, *, keep_folder: bool) -> None:
        """Remove what is left once init, which was killed, has ended; `keep_folder`: that one is another container's.

        Raises RuntimeFault when it does not end, and for a cgroup that is not let go.
        """
        if self._pidfd >= 0 and not pidfd.wait_end(self._pidfd, _END_SECONDS):
            raise RuntimeFault("init does not end: it may hang in the kernel", step="undo the container's creation")
        layout, request = look(), self._request
        mount = next(one.mount for one in layout.hierarchies if one.key == UNIFIED)
        Cgroup(cgroup_paths(layout, self._directory.removeprefix(mount), request.container_id), layout).remove()
        if not keep_folder:
            remove_folder(container_dir(request.state_root, request.container_id))

    def close(self) -> None:
        """Let go of what is held for `clear`."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def _be_init(request: CreateRequest, link: Link, *, placed: bool) -> None:
    gc.disable()  # it could close a descriptor of the caller's objects whose number has been used again
    set_dumpable(dumpable=False)
    set_name("wherry-creator")
    console = set() if request.console_socket is None else {request.console_socket}
    close_others({0, 1, 2, link.socket.fileno(), *(request.stdio or ()), *console})
    default_signals()
    inherited = _prepare(request, link)
    inherited.placed = placed
    run_alone(inherited)


def _prepare(request: CreateRequest, link: Link) -> Inherited:
    """Do what takes the host's root and its file systems; what is made is in the saved state, or known by its name."""
    plan = plan_launch(load_spec(request), request)
    cgroup = for_container(plan.spec.linux.cgroups_path, request.container_id, look())
    folder = reserve(request.state_root, request.container_id)
    pid = int(os.readlink("/proc/self"))  # as the host counts: here it is 1
    state = first_state(plan, cgroup, pid)
    save(request.state_root, replace(state, pid=pid, start_time=state.creator_start))
    inherited = Inherited(plan, link, cgroup, gate.listen(folder, CLOSED_GATE), standing(request.rootless))
    open_sources(inherited, Descriptors())  # nobody closes them here: they go before the program runs
    preload_launch(plan)
    cgroup.born_in_v2 = True
    cgroup.create()
    cgroup.apply(plan.spec.linux.resources)
    give_cgroup(plan, cgroup, pid)
    inherited.filter = compile_filter(plan.spec.linux.seccomp, folder)
    return inherited
