"""What is done to the processes in a cgroup, and its removal once they are gone."""

from __future__ import annotations

import os
from errno import EBUSY, ENOTEMPTY
from time import monotonic

from runtime.apply.cgroup import files
from runtime.errors import CgroupFault, KernelFault
from runtime.plan.cgroup import UNIFIED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.apply.cgroup.group import Cgroup

SIGKILL = 9
_KILL_TIMEOUT = 10.0
_FREEZE_TIMEOUT = 10.0
_STEP_MS = 10


def pause(milliseconds: int) -> None:
    """Let the kernel work for a moment, where it offers nothing to wait on."""
    _poll(None, milliseconds)


def _poll(fd: int | None, milliseconds: int, *, urgent: bool = False) -> None:
    """Wait until a descriptor is readable, or with `urgent` has news of another kind (POLLPRI in poll(2)), or for the time."""
    import select  # seldom needed: most containers that are deleted have ended

    poll = select.poll()
    if fd is not None:
        poll.register(fd, select.POLLPRI if urgent else select.POLLIN)
    poll.poll(milliseconds)


def _members(group: Cgroup) -> str | None:
    """Give the directory whose cgroup.procs is asked: the freezer's if there is one, because it is what is frozen."""
    for controller in ("freezer", UNIFIED, "name=systemd", "memory", "pids"):
        directory = group.directory(controller)
        if directory is not None and os.path.isdir(directory):
            return directory
    return next((directory for _, directory in group.paths if os.path.isdir(directory)), None)


def of_process(pid: int) -> Cgroup:
    """Give the v2 cgroup a process is in now; raise CgroupFault."""
    from runtime.apply.cgroup.detect import detect
    from runtime.apply.cgroup.group import Cgroup

    try:
        text = files.read(f"/proc/{pid}", "cgroup")
    except OSError as error:
        raise CgroupFault.from_os(error, f"find the cgroup of process {pid}") from error
    layout = detect()
    paths = dict(line.split(":", 2)[1:] for line in text.splitlines())
    found = [(one.key, one.mount + paths[one.key].rstrip("/")) for one in layout.hierarchies if one.key == UNIFIED]
    return Cgroup(tuple(found), layout)


def pids(group: Cgroup) -> list[int]:
    """Give the ids of the processes in the cgroup and below it, sorted."""
    directory = _members(group)
    found: set[int] = set()
    for path in files.below(directory) if directory else ():
        try:
            found.update(files.numbers(path, "cgroup.procs"))
        except OSError:
            continue  # removed since, or a threaded cgroup, whose processes its parent lists
    return sorted(found)


def signal_all(group: Cgroup, signal: int) -> None:
    """Signal every process; with SIGKILL also wait until none is left, at most ten seconds."""
    if signal == SIGKILL and _kill_by_file(group):
        if is_frozen(group):
            set_frozen(group, frozen=False)  # what a v1 freezer holds does not even die
        _await_empty(group)
        return
    freezes = _freezer(group) is not None
    deadline = monotonic() + _KILL_TIMEOUT
    while True:
        members = _signal_once(group, signal, freeze=freezes)
        if signal != SIGKILL or not members:
            return
        _await_exit(members, min(deadline, monotonic() + 0.2))
        if monotonic() > deadline:
            raise CgroupFault(f"processes {_some(members)} survive SIGKILL", step="kill the container")


def _signal_once(group: Cgroup, signal: int, *, freeze: bool) -> list[int]:
    stays = signal != SIGKILL and is_frozen(group)  # a paused container stays paused, but must thaw to die
    if freeze and not stays:
        _try_freeze(group)
    try:
        members = [pid for pid in pids(group) if pid != os.getpid()]
        for pid in members:
            try:
                os.kill(pid, signal)
            except ProcessLookupError:
                continue
    finally:
        if freeze and not stays:
            set_frozen(group, frozen=False)
    return members


def _try_freeze(group: Cgroup) -> None:
    try:
        set_frozen(group, frozen=True, timeout=0.5)
    except CgroupFault:
        return  # something in it cannot be frozen (a task in the D state): the rest still gets the signal


def _kill_by_file(group: Cgroup) -> bool:
    """Use cgroup.kill (Linux 5.14), which no fork can outrun; tell whether the kernel has it."""
    directory = group.directory(UNIFIED)
    if directory is None:
        return False
    try:
        files.write(directory, "cgroup.kill", "1")
    except FileNotFoundError:
        return not os.path.isdir(directory)
    except OSError:
        return False
    return True


def _await_empty(group: Cgroup) -> None:
    deadline = monotonic() + _KILL_TIMEOUT
    while members := [pid for pid in pids(group) if pid != os.getpid()]:
        if monotonic() > deadline:
            raise CgroupFault(f"processes {_some(members)} survive SIGKILL", step="kill the container")
        _await_exit(members, deadline)


def _await_exit(members: list[int], deadline: float) -> None:
    """Wait until these processes have exited, or the deadline."""
    for pid in members:
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            _poll(fd, max(0, int((deadline - monotonic()) * 1000)))
        finally:
            os.close(fd)
    if members:
        pause(1)


def _some(members: list[int]) -> str:
    return ", ".join(map(str, members[:5])) + (", …" if len(members) > 5 else "")


def _freezer(group: Cgroup) -> tuple[str, str] | None:
    """Give the directory and the file that freezes."""
    directory = group.directory("freezer")
    if directory is not None and os.path.isdir(directory):
        return directory, "freezer.state"
    directory = group.directory(UNIFIED)
    if directory is not None and os.path.exists(f"{directory}/cgroup.freeze"):
        return directory, "cgroup.freeze"
    return None


def set_frozen(group: Cgroup, *, frozen: bool, timeout: float = _FREEZE_TIMEOUT) -> None:
    """Freeze or thaw and wait until it is so; a freeze that does not come about is taken back and raises CgroupFault."""
    freezer = _freezer(group)
    if freezer is None:
        if not group.exists():
            return
        raise KernelFault("this host has no freezer cgroup", feature="cgroup freezer", step="freeze the container")
    directory, file = freezer
    wanted = ("FROZEN" if frozen else "THAWED") if file == "freezer.state" else str(int(frozen))
    deadline = monotonic() + timeout
    try:
        files.write(directory, file, wanted)
        while not _is_so(directory, file, wanted):
            if monotonic() > deadline:
                files.write(directory, file, "THAWED" if file == "freezer.state" else "0")
                raise CgroupFault(f"some process did not stand still in {timeout:g} s", step="freeze the container")
            _await_change(directory, file)
            if file == "freezer.state":
                files.write(directory, file, wanted)  # v1 makes progress only when told again
    except FileNotFoundError:
        return
    except OSError as error:
        raise CgroupFault.from_os(error, "freeze the container" if frozen else "thaw the container") from error


def _await_change(directory: str, file: str) -> None:
    if file == "freezer.state":
        pause(1)
        return
    fd = os.open(f"{directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _poll(fd, _STEP_MS, urgent=True)
    finally:
        os.close(fd)


def _is_so(directory: str, file: str, wanted: str) -> bool:
    if file == "freezer.state":
        return files.read(directory, file).strip() == wanted
    return files.keyed(files.read(directory, "cgroup.events"), "frozen") == int(wanted)


def is_frozen(group: Cgroup) -> bool:
    """Tell whether the cgroup is frozen or freezing."""
    freezer = _freezer(group)
    if freezer is None:
        return False
    directory, file = freezer
    try:
        if file == "freezer.state":
            return files.read(directory, file).strip() != "THAWED"
        return files.keyed(files.read(directory, "cgroup.events"), "frozen") == 1
    except OSError:
        return False


def remove(group: Cgroup, timeout: float) -> None:
    """Remove every directory of the cgroup, children first, waiting for dying processes.

    Most have no children and are gone at the first try; to look for some costs more than to fail.
    """
    deadline = monotonic() + timeout
    for _, directory in group.paths:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            continue
        except OSError:
            for path in files.below(directory):
                _remove_one(path, deadline)


def _remove_one(path: str, deadline: float) -> None:
    wait = 1
    while True:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (EBUSY, ENOTEMPTY):
                raise CgroupFault.from_os(error, "remove the container's cgroup", path=path) from error
            members = _still_in(path)
            if monotonic() > deadline:
                detail = f"processes {_some(members)} are still in it" if members else "it stays busy"
                raise CgroupFault.from_os(error, "remove the container's cgroup", detail, path=path) from error
        else:
            return
        if members:
            _await_exit(members, min(deadline, monotonic() + 0.1))
        else:
            pause(wait)  # v1 offers no event for the moment the last dead task has let go
            wait = min(wait * 2, 50)


def _still_in(path: str) -> list[int]:
    try:
        return files.numbers(path, "cgroup.procs")
    except OSError:
        return []
