"""The pod's namespaces, pinned by bind mounts, so that no process has to hold them.

`ns.json` names every pin before it is made: whoever cleans up needs no memory of what happened. Network, IPC and UTS
namespaces are made by the monitor, which enters them, pins them and comes back. A PID namespace takes in only children, and a
user namespace cannot be left again: these are made in a short-lived child. It works in the host's mount namespace, because
that is where the pins must be seen. With a user namespace a second child enters it, and the first one, which kept its
privileges, writes the maps and makes the pins.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal

from runtime.kernel import pidfd
from runtime.kernel.fork import fork
from runtime.kernel.mount import MNT_DETACH, MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, UMOUNT_NOFOLLOW, mount, umount2
from runtime.kernel.namespace import FLAGS, PROC_NAMES, setns, unshare
from runtime.kernel.uts import sethostname
from shim.errors import InvalidArgument, WherryError
from shim.monitor.files import read_json, remove, write_json
from shim.monitor.protocol import IdMap, NamespaceRequest, PodNamespaces, decode, encode
from shim.monitor.reaper import reap_for_ever

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

RECORD = "ns.json"
_IPC_SYSCTLS = ("kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue/")


def planned(request: NamespaceRequest, state_dir: str) -> PodNamespaces:
    """Say which pins `request` leads to; pure. Raises InvalidArgument for a request that contradicts itself."""
    paths: dict[str, str] = {}
    if request.net_pin:
        if not os.path.isabs(request.net_pin):
            raise InvalidArgument(f"net_pin {request.net_pin!r} must be an absolute path")
        paths["network"] = request.net_pin
    for kind, wanted in (("ipc", request.ipc), ("uts", request.uts), ("pid", request.pid), ("user", bool(request.uid_maps))):
        if wanted:
            paths[kind] = f"{state_dir}/ns/{kind}"
    if bool(request.uid_maps) != bool(request.gid_maps):
        raise InvalidArgument("uid_maps and gid_maps must be given together")
    if request.hostname and not request.uts:
        raise InvalidArgument(f"hostname {request.hostname!r} needs a UTS namespace of the pod's own")
    for key in request.sysctls:
        _check_sysctl(request, key)
    return PodNamespaces(paths=paths, shm=f"{state_dir}/shm" if request.ipc and request.shm_size else "")


def sysctl_path(key: str) -> str:
    """Give the path below /proc/sys of a sysctl; dots and slashes swap when a dot comes first (sysctl.d(5))."""
    first = min((key.find(mark) for mark in "./" if mark in key), default=-1)
    path = key.translate(str.maketrans("./", "/.")) if first >= 0 and key[first] == "." else key
    if not path or path.startswith("/") or ".." in path.split("/"):
        raise InvalidArgument(f"sysctl {key!r} is not a name")
    return path


def _check_sysctl(request: NamespaceRequest, key: str) -> None:
    path = sysctl_path(key)
    if path.startswith("net/"):
        owned = bool(request.net_pin)
    elif path.startswith(_IPC_SYSCTLS):
        owned = request.ipc
    elif path == "kernel/domainname":
        owned = request.uts
    else:
        owned = False
    if not owned:
        raise InvalidArgument(f"sysctl {key!r} belongs to no namespace of the pod; it would change the node")


def make(request: NamespaceRequest, state_dir: str) -> dict[str, Any]:
    """Make and pin the namespaces and the shm; on an error undo what was made. Runs in a child; gives a PodNamespaces."""
    plan = planned(request, state_dir)
    record = os.path.join(state_dir, RECORD)
    write_json(record, encode(plan))
    try:
        with _maker(request, plan) as (maker, reaper):
            _pin(plan, maker, reaper)
        _mount_shm(request, plan)
        made = PodNamespaces(
            paths=plan.paths, shm=plan.shm, reaper_pid=reaper, reaper_start=_start_time(reaper) if reaper else 0
        )
        write_json(record, encode(made))
    except BaseException:
        remove_all(state_dir)
        raise
    return {"namespaces": encode(made)}


@contextlib.contextmanager
def _maker(request: NamespaceRequest, plan: PodNamespaces) -> Iterator[tuple[str, int]]:
    """Give the /proc name of the process that is in the new namespaces, and the reaper's pid, while it lives."""
    if fits_here(request):
        with _elsewhere([kind for kind in plan.paths if kind in ("network", "ipc", "uts")]):
            _enter(request, plan)
            yield "self", 0
        return
    if "user" not in plan.paths:
        reaper = _enter(request, plan)
        try:
            yield "self", reaper
        except BaseException:
            _kill(reaper)
            raise
        return
    with _second_child(request, plan) as (pid, reaper):
        try:
            yield str(pid), reaper
        except BaseException:
            _kill(reaper)
            raise


def fits_here(request: NamespaceRequest) -> bool:
    """Tell whether `make` can be called in a process that goes on: these namespaces can be left again (setns(2))."""
    return not request.pid and not request.uid_maps


@contextlib.contextmanager
def _elsewhere(kinds: list[str]) -> Iterator[None]:
    """Come back to the present namespaces of these kinds afterwards; a process that cannot ends at once."""
    origin = [(kind, os.open(f"/proc/self/ns/{PROC_NAMES[kind]}", os.O_RDONLY | os.O_CLOEXEC)) for kind in kinds]
    try:
        yield
    finally:
        try:
            for kind, fd in origin:
                setns(fd, FLAGS[kind])
                os.close(fd)
        except OSError:
            os._exit(70)  # whatever it did next it would do in the pod


def _kill(pid: int) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _enter(request: NamespaceRequest, plan: PodNamespaces) -> int:
    """Enter the new namespaces, except the user namespace, and set them up; give the reaper's pid or 0."""
    flags = 0
    for kind in plan.paths:
        if kind != "user":
            flags |= FLAGS[kind]
    unshare(flags)
    if request.hostname:
        sethostname(request.hostname)
    for key, value in request.sysctls.items():
        try:
            with open(f"/proc/sys/{sysctl_path(key)}", "w", encoding="utf-8") as file:
                file.write(value)
        except OSError as error:
            raise InvalidArgument(f"sysctl {key}={value}: {(error.strerror or '').lower()}") from error
    return _fork_reaper() if request.pid else 0


def _fork_reaper() -> int:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = fork()
    if pid == 0:
        try:
            reap_for_ever(writer)
        finally:
            os._exit(1)
    os.close(writer)
    try:
        fault = os.read(reader, 4096)
    finally:
        os.close(reader)
    if fault:
        raise WherryError(fault.decode())
    return pid


@contextlib.contextmanager
def _second_child(request: NamespaceRequest, plan: PodNamespaces) -> Iterator[tuple[int, int]]:
    to_child, from_child = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    pid = fork()
    if pid == 0:
        try:
            os.close(to_child[1])
            _be_second_child(request, plan, (to_child[0], from_child[1]))
        except (OSError, WherryError) as error:
            os.write(from_child[1], f"!{error}".encode())
        finally:
            os._exit(1)
    os.close(to_child[0])
    os.close(from_child[1])
    try:
        _answer(from_child[0])
        write_maps(pid, request.uid_maps, request.gid_maps)
        os.write(to_child[1], b"m")
        yield pid, int(_answer(from_child[0]))
    finally:
        os.close(to_child[1])
        os.close(from_child[0])
        _kill(pid)
        os.waitpid(pid, 0)


def _be_second_child(request: NamespaceRequest, plan: PodNamespaces, pipes: tuple[int, int]) -> None:
    unshare(FLAGS["user"])
    os.write(pipes[1], b"u")
    if not os.read(pipes[0], 1):
        return
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    reaper = _enter(request, plan)
    os.write(pipes[1], str(reaper).encode())
    os.read(pipes[0], 1)  # until the pins are made and the other end is closed


def _answer(fd: int) -> str:
    answer = os.read(fd, 4096).decode(errors="replace")
    if not answer or answer.startswith("!"):
        raise WherryError(f"pod user namespace: {answer[1:] or 'its first process died'}")
    return answer


def write_maps(pid: int, uids: tuple[IdMap, ...], gids: tuple[IdMap, ...]) -> None:
    """Give a new user namespace its maps (user_namespaces(7)): one write each, from outside."""
    for name, maps in (("uid_map", uids), ("gid_map", gids)):
        text = "".join(f"{item.container_id} {item.host_id} {item.size}\n" for item in maps)
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        except OSError as error:
            raise InvalidArgument(f"pod user namespace: {name} {text!r}: {(error.strerror or '').lower()}") from error
        finally:
            os.close(fd)


def _pin(plan: PodNamespaces, maker: str, reaper: int) -> None:
    for kind, path in plan.paths.items():
        os.makedirs(os.path.dirname(path), 0o755 if kind == "network" else 0o700, exist_ok=True)
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
        owner = str(reaper) if kind == "pid" else maker
        mount(f"/proc/{owner}/ns/{PROC_NAMES[kind]}", path, "none", MS_BIND)


def _mount_shm(request: NamespaceRequest, plan: PodNamespaces) -> None:
    if plan.shm:
        os.makedirs(plan.shm, 0o700, exist_ok=True)
        mount("shm", plan.shm, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, f"mode=1777,size={request.shm_size}")


def _start_time(pid: int) -> int:
    found = pidfd.stat(pid)
    return found[1] if found else 0


def load(state_dir: str) -> PodNamespaces | None:
    """Give what `make` recorded; None when there is nothing."""
    value = read_json(os.path.join(state_dir, RECORD))
    return None if value is None else decode(PodNamespaces, value)


def remove_all(state_dir: str) -> dict[str, Any]:
    """Undo what the record names, whoever made it; nothing there is no error. Raises OSError for a pin that stays."""
    made = load(state_dir)
    if made is None:
        return {}
    if made.reaper_pid:
        handle = pidfd.open_process(made.reaper_pid, made.reaper_start)
        if handle is not None:
            pidfd.send_signal(handle, signal.SIGKILL)
            os.close(handle)
    for path in made.paths.values():
        _unmount(path)
        remove(path)
    if made.shm:
        _unmount(made.shm)
    for folder in (made.shm, os.path.join(state_dir, "ns")):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if folder:
                os.rmdir(folder)
    remove(os.path.join(state_dir, RECORD))
    return {}


def _unmount(path: str) -> None:
    """Unmount all that lies on `path`: a repeated setup may have left more than one."""
    while True:
        try:
            umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return
            raise
