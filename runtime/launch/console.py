"""The terminal of a process: a pty of the container's own devpts, whose master goes to the caller (pty(7))."""

from __future__ import annotations

import _socket
import os
import stat
import sys

from runtime.apply.faults import Step
from runtime.errors import RuntimeFault
from runtime.kernel import mount as k
from runtime.kernel.path import DEVPTS_SUPER_MAGIC, fstatfs_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.apply.paths import RootPaths
    from runtime.spec.model import ConsoleSize

_TIOCSCTTY = 0x540E
_TIOCSWINSZ = 0x5414
_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_PTMX = os.makedev(5, 2)


class Console:
    """A pty: descriptors of both sides, and its number."""

    __slots__ = ("master", "number", "slave")

    def __init__(self, master: int, slave: int, number: int) -> None:
        self.master = master
        self.slave = slave
        self.number = number


def open_console(paths: RootPaths, size: ConsoleSize | None) -> Console:
    """Allocate a pty from /dev/pts of the root; both sides are checked to be what they should be (CVE-2025-52565)."""
    import fcntl

    with Step("allocate the terminal", "/dev/pts/ptmx"):
        master = paths.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY, plain=True)
        status = os.fstat(master)
        if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _PTMX or fstatfs_type(master) != DEVPTS_SUPER_MAGIC:
            os.close(master)
            raise RuntimeFault("this is not the multiplexer of a devpts: mount a devpts on /dev/pts", path="/dev/pts/ptmx")
        fcntl.ioctl(master, _TIOCSPTLCK, b"\0" * 4)
        number = int.from_bytes(fcntl.ioctl(master, _TIOCGPTN, b"\0" * 4), sys.byteorder)
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        if size is not None:
            window = b"".join(part.to_bytes(2, sys.byteorder) for part in (size.height, size.width, 0, 0))
            fcntl.ioctl(slave, _TIOCSWINSZ, window)
    return Console(master, slave, number)


def bind_console(paths: RootPaths, console: Console) -> None:
    """Make the pty the container's /dev/console."""
    with Step("bind the terminal on /dev/console", "/dev/console"):
        target = paths.target("/dev/console", is_directory=False, plain=True)  # the image may have made it a link
        copy = k.open_tree("", dir_fd=console.slave)
        k.move_mount(copy, target, path="/dev/console")
        os.close(copy)
        os.close(target)


def hand_over(console: Console, socket_fd: int) -> None:
    """Send the master to the caller and close it; the message is the terminal's name, as runc's is."""
    with Step("send the terminal over the console socket"):
        sender = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, os.dup(socket_fd))
        rights = console.master.to_bytes(4, sys.byteorder)
        try:
            sender.sendmsg([f"/dev/pts/{console.number}".encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
        finally:
            sender.close()
        os.close(console.master)


def take_over(console: Console) -> None:
    """Make the terminal this session's and its standard streams; the process leads a session of its own already."""
    import fcntl

    with Step("take the terminal over"):
        for number in (0, 1, 2):
            os.dup2(console.slave, number)
        os.close(console.slave)
        fcntl.ioctl(0, _TIOCSCTTY, 0)


def place_stdio(stdio: tuple[int, int, int] | None) -> None:
    """Make the caller's descriptors 0, 1 and 2, whatever order they are in."""
    if stdio is None:
        return
    copies = [os.dup(fd) for fd in stdio]
    for number, fd in enumerate(copies):
        os.dup2(fd, number)
        os.close(fd)
    for fd in set(stdio) - {0, 1, 2}:
        os.close(fd)
