"""netdevice(7): set the loopback interface of this network namespace up."""

from __future__ import annotations

import _socket
import fcntl
import sys

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_REQUEST_SIZE = 40


def loopback_up() -> None:
    """Set `lo` up; the kernel gives it its addresses."""
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        request = b"lo".ljust(16, b"\0").ljust(_REQUEST_SIZE, b"\0")
        answer = fcntl.ioctl(control.fileno(), _SIOCGIFFLAGS, request)
        flags = int.from_bytes(answer[16:18], sys.byteorder) | _IFF_UP
        fcntl.ioctl(control.fileno(), _SIOCSIFFLAGS, answer[:16] + flags.to_bytes(2, sys.byteorder) + answer[18:])
    finally:
        control.close()
