"""The conversation with criu: `criu swrk` serves one request over a SEQPACKET socket and asks us to act at certain points.

criu runs as our child; a process it restores becomes our child too. Descriptors that requests name by number are criu's own.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import sys

from runtime.checkpoint.message import CHECK, FEATURE_CHECK, FEATURES, NOTIFY, NOTIFY_SUCCESS, OPTS, TYPE, VERSION, read_answer
from runtime.checkpoint.message import encode as encode_message
from runtime.errors import KernelFault, ProtocolFault, RuntimeFault, from_value
from runtime.jsonlite import dumps, loads
from runtime.kernel.execute import close_range
from runtime.kernel.fork import fork
from runtime.kernel.spawn import default_signals
from runtime.record import Record
from runtime.state import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from runtime.checkpoint.message import Answer, Fields

    Notified = Callable[[str, int, tuple[int, ...]], None]

_LIMIT = 64 * 1024
_MAX_FDS = 8
_SOCKET_NUMBER = 3
IMAGES_NUMBER, WORK_NUMBER, FIRST_INHERITED = 4, 5, 6
"""Numbers that descriptors have in criu: the folders, and the first of those it inherits."""
_LOG_LIMIT = 1 << 20
_HARMLESS = "rlimit:"
"""Beginning of an error that criu goes on after: it could not raise a limit of its own."""
_CAP_SYS_RESOURCE = 24
_QUOTED = 3
"""Lines of criu's log that go into an error."""


def find_program(name: str) -> str:
    """Give the path of criu; raise KernelFault when it is not installed."""
    folders = [""] if "/" in name else os.get_exec_path()
    for folder in folders:
        path = os.path.join(folder, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise KernelFault(f"{name} is not installed: checkpoint and restore need it (package criu, or --criu PATH)", feature="criu")


class Launch(Record):
    """How a criu is started.

    `enter` runs in its process before it does, and what that raises is raised here. `folders` are opened there afterwards, as
    it sees them: of its images and of its log. `inherited` become its descriptors from FIRST_INHERITED on.
    """

    enter: Callable[[], None] | None = None
    folders: tuple[str, ...] = ()
    inherited: tuple[int, ...] = ()
    stdio: tuple[int, int, int] | None = None


class Criu:
    """One criu process and what it is asked."""

    def __init__(self, program: str, launch: Launch) -> None:
        self.program = find_program(program)
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        try:
            self.pid = fork()
            if self.pid == 0:
                _become_criu(self.program, launch, theirs)
            theirs.close()
            self._socket = _socket.socket(fileno=_await_start(ours, self.pid))
        finally:
            ours.close()
            theirs.close()

    def ask(self, fields: Fields, notified: Notified | None = None) -> Answer:
        """Make one request and give the answer; `notified` acts on notifications. Raises ProtocolFault when criu dies."""
        self._send(fields)
        while True:
            answer, fds = self._receive()
            try:
                if answer.kind != NOTIFY:
                    return answer
                if notified is not None:
                    notified(answer.script, answer.pid, fds)
            except BaseException:
                self._send([(TYPE, NOTIFY), (NOTIFY_SUCCESS, False)])
                raise
            finally:
                for fd in fds:
                    os.close(fd)
            self._send([(TYPE, NOTIFY), (NOTIFY_SUCCESS, True)])

    def _send(self, fields: Fields) -> None:
        try:
            self._socket.send(encode_message(fields), _socket.MSG_NOSIGNAL)
        except OSError as error:
            raise self._gone(error) from error

    def _receive(self) -> tuple[Answer, tuple[int, ...]]:
        try:
            data, fds = _receive(self._socket)
        except OSError as error:
            raise self._gone(error) from error
        if not data:
            raise self._gone(None)
        return read_answer(data), fds

    def _gone(self, error: OSError | None) -> ProtocolFault:
        return ProtocolFault(
            "criu ended without an answer", step="ask criu", path=self.program, errno=error.errno if error else None
        )

    def close(self) -> int:
        """Let criu end and give its exit code."""
        self._socket.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _receive(sock: _socket.socket) -> tuple[bytes, tuple[int, ...]]:
    """Give one message and the descriptors with it, close-on-exec."""
    data, ancillary, _, _ = sock.recvmsg(_LIMIT, _socket.CMSG_SPACE(4 * _MAX_FDS), _socket.MSG_CMSG_CLOEXEC)
    fds = [
        int.from_bytes(rights[at : at + 4], sys.byteorder)
        for level, kind, rights in ancillary
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS
        for at in range(0, len(rights), 4)
    ]
    return data, tuple(fds)


def _become_criu(program: str, launch: Launch, report: _socket.socket) -> NoReturn:
    """Execute criu; its end of the conversation, or the fault that kept it away, goes over `report`.

    The conversation's socket is made here because criu opens what requests name by number as descriptors of the process that
    made the socket. They have to be criu's own: a folder of another mount namespace is of no use to it.
    """
    try:
        default_signals()
        if launch.enter is not None:
            launch.enter()
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        report.sendmsg([b"\0"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, ours.fileno().to_bytes(4, sys.byteorder))])
        folders = [os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for path in launch.folders]
        stdio = launch.stdio or (os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC),) * 3
        report = _place((*stdio, theirs.fileno(), *folders, *launch.inherited), report)
        os.execv(program, ["criu", "swrk", str(_SOCKET_NUMBER)])  # noqa: S606 - a program is what is wanted
    except RuntimeFault as fault:
        _tell(report, fault)
    except OSError as error:
        _tell(report, RuntimeFault.from_os(error, "start criu", path=error.filename or program))
    except BaseException as error:  # noqa: BLE001 - nothing may return into the parent's code
        _tell(report, RuntimeFault(f"{type(error).__name__}: {error}", step="start criu"))
    finally:
        os._exit(1)


def _place(numbers: tuple[int, ...], report: _socket.socket) -> _socket.socket:
    """Make `numbers` the descriptors from 0 on and keep no other but `report`, which is given back with its new number."""
    floor = len(numbers) + 1
    kept = fcntl.fcntl(report.detach(), fcntl.F_DUPFD_CLOEXEC, floor)
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, floor) for fd in numbers]
    for number, fd in enumerate(copies):
        os.dup2(fd, number)
    os.dup2(kept, len(numbers), inheritable=False)
    close_range(floor)
    return _socket.socket(fileno=len(numbers))


def _tell(report: _socket.socket, fault: RuntimeFault) -> None:
    report.send(dumps(fault.to_value()).encode("utf-8", "surrogateescape"))


def _await_start(report: _socket.socket, pid: int) -> int:
    """Wait until criu is executed and give our end of its socket; raise the fault that kept it away."""
    conversation = -1
    while True:
        data, fds = _receive(report)
        if fds:
            conversation = fds[0]
        elif data:
            fault = from_value(loads(data))
            break
        elif conversation >= 0:
            return conversation
        else:
            fault = ProtocolFault("its process ended before criu was executed", step="start criu")
            break
    if conversation >= 0:
        os.close(conversation)
    os.waitpid(pid, 0)
    raise fault


def ask_once(program: str, fields: Fields) -> Answer:
    """Start a criu for one request without notifications."""
    criu = Criu(program, Launch())
    try:
        return criu.ask(fields)
    finally:
        criu.close()


def version_of(program: str) -> str:
    """Give criu's version, as in 4.2.1; raise KernelFault when there is no criu, ProtocolFault when it does not answer."""
    major, minor, sub = ask_once(program, [(TYPE, VERSION)]).version
    return f"{major}.{minor}" + (f".{sub}" if sub else "")


def require_feature(program: str, *, memory: bool = False, lazy: bool = False) -> None:
    """Raise KernelFault unless criu and the kernel can track changes of memory, or serve pages lazily."""
    asked: Fields = [(1, memory), (2, lazy)]
    found = ask_once(program, [(TYPE, FEATURE_CHECK), (FEATURES, encode_message(asked))]).features
    if memory and not found[0]:
        raise KernelFault(
            "this kernel cannot tell which memory has changed (CONFIG_MEM_SOFT_DIRTY), criu is missing features: [MemTrack]",
            feature="soft-dirty memory tracking",
        )
    if lazy and not found[1]:
        raise KernelFault(
            "this kernel or criu cannot serve memory lazily (userfaultfd), criu is missing features: [LazyPages]",
            feature="userfaultfd",
        )


def failure(program: str, what: str, answer: Answer, log: str) -> RuntimeFault:
    """Give the fault of a request that failed: what criu's log says, or that this criu cannot work on this kernel."""
    said = "; ".join(_errors(log))
    kernel = os.uname().release
    try:
        version = version_of(program)
        works = ask_once(program, [(TYPE, CHECK), (OPTS, encode_message([(1, -1), (71, True), (9, 0)]))]).success
    except RuntimeFault:
        version, works = "of an unknown version", False
    if not works:
        return KernelFault(
            f"criu {version} does not work with this kernel ({kernel}): install a newer criu" + (f" ({said})" if said else ""),
            feature="criu",
            step=what,
            path=find_program(program),
        )
    if "rlimit" in said and not may_set_limits():
        said += "; without CAP_SYS_RESOURCE criu serves only processes of its own user"
    detail = f"criu {version} failed: {said or answer.error or 'it does not say why'}; see {log}"
    return RuntimeFault(detail, step=what, errno=answer.errno or None)


def may_set_limits() -> bool:
    """Tell whether this process has CAP_SYS_RESOURCE."""
    for line in read_file("/proc/self/status").decode().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.partition(":")[2], 16) >> _CAP_SYS_RESOURCE & 1)
    return False


def _errors(log: str) -> list[str]:
    """Give the first errors of a criu log, without their time and place in criu's sources."""
    try:
        with open(log, "rb", buffering=0) as file:
            text = file.read(_LOG_LIMIT).decode("utf-8", "replace")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        _, mark, rest = line.partition("Error (")
        if mark:
            found.append(rest.partition("): ")[2].strip())
    return [one for one in found if one and not one.startswith(_HARMLESS)][:_QUOTED]
