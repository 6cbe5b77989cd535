"""Unix sockets and descriptors over them, on the C module: the socket package costs four milliseconds to import."""

from __future__ import annotations

import os

from runtime.errors import RuntimeFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
else:
    import _socket

_FD_SIZE = 4


def connect(path: str, step: str) -> _socket.socket:
    """Connect to a listening stream socket; raise RuntimeFault."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(os.fsencode(path))
    except OSError as error:
        sock.close()
        raise RuntimeFault.from_os(error, step, path=path) from error
    return sock


def pair() -> tuple[int, int]:
    """Give the descriptors of two connected sockets, close-on-exec."""
    first, second = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    return first.detach(), second.detach()


def receive_fd(fd: int, step: str) -> int:
    """Receive one descriptor (close-on-exec); raise RuntimeFault when none came."""
    sock = _socket.socket(fileno=os.dup(fd))
    try:
        _, ancillary, _, _ = sock.recvmsg(4096, _socket.CMSG_SPACE(_FD_SIZE), _socket.MSG_CMSG_CLOEXEC)
    finally:
        sock.close()
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS and len(data) >= _FD_SIZE:
            import sys

            return int.from_bytes(data[:_FD_SIZE], sys.byteorder)
    raise RuntimeFault("no descriptor came", step=step)


def send_fd(path: str, fd: int, step: str) -> None:
    """Send a descriptor to a listening socket, with its name as the message; raise RuntimeFault."""
    import sys

    sock = connect(path, step)
    try:
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(_FD_SIZE, sys.byteorder))]
        sock.sendmsg([b"pidfd"], rights)
    except OSError as error:
        raise RuntimeFault.from_os(error, step, path=path) from error
    finally:
        sock.close()
