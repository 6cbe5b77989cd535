"""Messages between wherryd, the spawner, its jobs and the monitors: one JSON object and some descriptors a datagram.

Every link is an AF_UNIX SOCK_SEQPACKET socket, so a message arrives whole or not at all and descriptors stay with the
message they belong to (unix(7)). A payload over `INLINE_LIMIT` travels in a memfd instead, because the kernel bounds a
datagram by the send buffer. Nothing is ever pickled.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket

from runtime import jsonlite
from shim import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

INLINE_LIMIT = 64 * 1024
"""Bytes of JSON sent in the datagram itself; more goes through a memfd."""
MESSAGE_LIMIT = 64 * 1024 * 1024
"""Bytes of JSON accepted from a peer."""
MAX_FDS = 64
"""Descriptors accepted with one message."""
_FD_SPACE = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)

BACKLOG = 16
"""Connections that may wait to be accepted."""

_FAULT_CODES = {
    "usage": "INVALID_ARGUMENT",
    "spec": "INVALID_ARGUMENT",
    "not-found": "NOT_FOUND",
    "exists": "ALREADY_EXISTS",
    "state": "FAILED_PRECONDITION",
    "kernel": "FAILED_PRECONDITION",
}
_NO_SPACE = "RESOURCE_EXHAUSTED"
_FULL = (28, 122)
"""ENOSPC and EDQUOT."""
_LIMITING = ("limit the container", "plan the cgroup")
_BAD_VALUE = (None, 22, 34, 75)
"""Of a limit: none that could be written at all, EINVAL, ERANGE and EOVERFLOW."""
_NO_PLACE = (20, 21)
"""Of a mount: ENOTDIR and EISDIR, a path through a file, or a file and a directory that are to cover each other."""
_CUT = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_NOSIGNAL = int(socket.MSG_NOSIGNAL)
_RIGHTS = int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS)
# Plain numbers: arithmetic on enumerations is slow, and its pages would be copied by every monitor.
_INLINE = b"J"
_MEMFD = b"M"


class WireError(Exception):
    """The peer sent something that is not a message, or closed in the middle of one."""


class PeerClosed(WireError):  # noqa: N818 - an event as much as an error
    """The peer closed the link: end of the conversation."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Give two connected ends, both close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


def send(sock: socket.socket, message: dict[str, Any], fds: tuple[int, ...] | list[int] = ()) -> None:
    """Send `message` with `fds` (still owned by the caller); raise OSError, BlockingIOError on a full nonblocking socket."""
    payload = jsonlite.dumps(message).encode()
    if len(payload) <= INLINE_LIMIT:
        _send(sock, _INLINE + payload, fds)
        return
    memfd = os.memfd_create("wherry-message", os.MFD_CLOEXEC)
    try:
        view = memoryview(payload)
        while view:
            view = view[os.write(memfd, view) :]
        _send(sock, _MEMFD + str(len(payload)).encode(), [memfd, *fds])
    finally:
        os.close(memfd)


def _send(sock: socket.socket, datagram: bytes, fds: tuple[int, ...] | list[int]) -> None:
    rights = [(*_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([datagram], rights, _NOSIGNAL)


def recv(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Receive one message and its descriptors (now owned by the caller, close-on-exec).

    Raises PeerClosed at the end, WireError for anything malformed (descriptors that came with it are closed),
    BlockingIOError when a nonblocking socket has nothing.
    """
    datagram, fds, flags = _recv(sock)
    try:
        message = _parse(_payload(datagram, fds, flags))
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return message, fds


def _payload(datagram: bytes, fds: list[int], flags: int) -> bytes:
    if not datagram:
        raise PeerClosed("the peer closed the link")
    if flags & _CUT:
        raise WireError("a message was longer than allowed")
    if datagram[:1] == _MEMFD:
        return _read_memfd(datagram[1:], fds)
    if datagram[:1] != _INLINE:
        raise WireError("a message began with an unknown kind")
    return datagram[1:]


def _recv(sock: socket.socket) -> tuple[bytes, list[int], int]:
    datagram, ancillary, flags, _ = sock.recvmsg(INLINE_LIMIT + 1, _FD_SPACE, _CLOEXEC)
    received = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == _RIGHTS:
            received.frombytes(data[: len(data) - len(data) % received.itemsize])
    return datagram, received.tolist(), flags


def _read_memfd(payload: bytes, fds: list[int]) -> bytes:
    if not fds or not payload.isdigit():
        raise WireError("a large message came without its memory")
    memfd = fds.pop(0)
    try:
        length = int(payload)
        if length > MESSAGE_LIMIT or os.fstat(memfd).st_size != length:
            raise WireError("a large message has the wrong length")
        return os.pread(memfd, length, 0)
    finally:
        os.close(memfd)


def _parse(payload: bytes) -> dict[str, Any]:
    try:
        message = jsonlite.loads(payload)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a message is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise WireError("a message is not an object")
    return message


def listen(path: str) -> socket.socket:
    """Bind a socket at `path`, which only its owner may connect to; a path of any length, a stale socket is replaced.

    Raises AlreadyExists when somebody listens there.
    """
    with contextlib.suppress(OSError), connect(path):
        raise errors.AlreadyExists(f"another process listens on {path}")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        with _reachable(path) as short:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(short)
            before = os.umask(0o177)
            try:
                sock.bind(short)
            finally:
                os.umask(before)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def connect(path: str) -> socket.socket:
    """Connect to the socket at `path`, a path of any length; raise OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        with _reachable(path) as short:
            sock.connect(short)
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _reachable(path: str) -> Iterator[str]:
    """Give a name below 108 bytes, the bound of unix(7), for a path that may be longer."""
    folder = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


def send_outcome(sock: socket.socket, work: Callable[[], dict[str, Any]]) -> None:
    """Do `work` and send {"ok": its value}, or {"error": …} for what it raised; a value that is not JSON is an error too."""
    try:
        send(sock, {"ok": work()})
    except BaseException as error:  # noqa: BLE001 - it crosses as a value
        send(sock, {"error": value_of(error)})


def value_of(error: BaseException) -> dict[str, Any]:
    """Turn an error into plain values that `error_of` turns back.

    A shim error keeps its class and its `details`; a fault of the runtime becomes the class that fits, with its own values
    as details; anything else is ours.
    """
    if isinstance(error, errors.WherryError):
        return {"code": error.code, "message": str(error), "details": dict(error.details)}
    if hasattr(error, "to_value"):
        fault = error.to_value()
        code = _code_of_fault(fault)
        return {"code": code, "message": str(error), "details": {"fault": fault}}
    if isinstance(error, OSError):
        code = _NO_SPACE if error.errno in _FULL else "UNKNOWN"
        return {"code": code, "message": str(error), "details": {"errno": error.errno, "path": str(error.filename or "")}}
    return {"code": "INTERNAL", "message": f"{type(error).__name__}: {error}", "details": {}}


def _code_of_fault(fault: dict[str, Any]) -> str:
    """Say whose fault it is; a limit that the kernel refuses is the request's, or the state's of the cgroups around it."""
    kind, number = str(fault.get("kind")), fault.get("errno")
    if kind == "cgroup" and str(fault.get("step")).startswith(_LIMITING):
        return "INVALID_ARGUMENT" if number in _BAD_VALUE else "FAILED_PRECONDITION"
    if number in _NO_PLACE and str(fault.get("step")).startswith("mount "):
        return "INVALID_ARGUMENT"
    return _NO_SPACE if number in _FULL else _FAULT_CODES.get(kind, "UNKNOWN")


def error_of(value: Any) -> errors.WherryError:
    """Give the shim error a peer meant; its `details` attribute holds what came with it."""
    if not isinstance(value, dict):
        return errors.Internal(f"a peer answered with an error that is none: {value!r}")
    kinds = {kind.code: kind for kind in errors.WherryError.__subclasses__() if kind.__module__ == errors.__name__}
    error = kinds.get(str(value.get("code")), errors.WherryError)(str(value.get("message", "")))
    details = value.get("details")
    error.details = details if isinstance(details, dict) else {}
    return error
