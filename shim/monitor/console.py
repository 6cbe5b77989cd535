"""The socket over which an OCI runtime sends the master of a container's terminal (runc's --console-socket)."""

from __future__ import annotations

import contextlib
import os
import socket

from shim.errors import Internal
from shim.monitor.files import remove
from shim.monitor.stdio import receive_terminal
from shim.reactor import Expired

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.reactor import Reactor

_SECONDS = 10.0


class ConsoleSocket:
    """A place for one terminal: a connected pair for the built-in runtime, a listening path for another one."""

    def __init__(self, reactor: Reactor, folder: str, name: str, *, listening: bool) -> None:
        """Make the socket. A path is reached through a descriptor in `keep`, so that its length does not matter (unix(7))."""
        self._reactor = reactor
        self._folder_fd = -1
        self._file = ""
        self.path = ""
        self.peer_fd = -1
        if not listening:
            self._sock, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            self.peer_fd = peer.detach()
            return
        self._folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._file = os.path.join(folder, f"{name}.tty")
        self.path = f"/proc/self/fd/{self._folder_fd}/{name}.tty"
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        remove(self._file)
        self._sock.bind(self.path)
        self._sock.listen(1)

    @property
    def keep(self) -> tuple[int, ...]:
        """Descriptors that the runtime's process needs."""
        return tuple(fd for fd in (self._folder_fd, self.peer_fd) if fd >= 0)

    async def receive(self) -> int:
        """Give the pty's master once it was sent; raise Internal when it does not come."""
        connection = self._sock
        self._drop_peer()
        try:
            await self._reactor.within(_SECONDS, self._reactor.readable(self._sock.fileno()))
            if self._file:
                connection, _address = self._sock.accept()
                await self._reactor.within(_SECONDS, self._reactor.readable(connection.fileno()))
            return receive_terminal(connection)
        except (Expired, OSError) as error:
            raise Internal(f"the runtime sent no terminal: {error}") from error
        finally:
            for sock in (connection, self._sock):
                self._reactor.unwatch(sock.fileno())
            connection.close()

    def _drop_peer(self) -> None:
        if self.peer_fd >= 0:
            os.close(self.peer_fd)
            self.peer_fd = -1

    def close(self) -> None:
        """Close and remove; a second call does nothing."""
        self._drop_peer()
        self._sock.close()
        if self._folder_fd >= 0:
            os.close(self._folder_fd)
            self._folder_fd = -1
        with contextlib.suppress(OSError):
            if self._file:
                remove(self._file)
