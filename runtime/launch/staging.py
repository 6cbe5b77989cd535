"""Hear what stage1 says, and that it died: the init it forked holds the same end of the link, and says nothing before GO."""

from __future__ import annotations

import os
import select

from runtime.errors import ProtocolFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.launch.protocol import Link


class Stage:
    """stage1 as its creator sees it, until it said CHILD. `fileno` becomes readable when `receive` will not wait."""

    __slots__ = ("_epoll", "_link", "_pidfd")

    def __init__(self, link: Link, pid: int) -> None:
        """Watch child `pid`, which nobody has reaped; raise OSError without descriptors."""
        self._link = link
        self._pidfd = os.pidfd_open(pid)
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._epoll.register(link.socket.fileno(), select.EPOLLIN)
        self._epoll.register(self._pidfd, select.EPOLLIN)

    def fileno(self) -> int:
        """Give the descriptor to wait on."""
        return self._epoll.fileno()

    def receive(self, *expected: bytes) -> tuple[bytes, bytes]:
        """Wait for a message as Link.receive does; raise ProtocolFault also when stage1 ended without one."""
        self._epoll.poll()
        ready = [fd for fd, _ in self._epoll.poll(0)]  # again: what it said before it ended is there by now
        if self._link.socket.fileno() not in ready:
            raise ProtocolFault(f"stage1 ended while {expected[0].decode()!r} was awaited", step="wait for a message")
        return self._link.receive(*expected)

    def close(self) -> None:
        """Stop watching."""
        self._epoll.close()
        os.close(self._pidfd)
