"""The loop's end of a wire: receives messages, sends without ever blocking, and gives up on a peer that does not read."""

from __future__ import annotations

import os
from collections import deque

from shim import wire
from shim.reactor import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

    from shim.reactor import Reactor

QUEUE_LIMIT = 4096
"""Messages kept for a peer that does not read; beyond that the link is closed, and the peer has to ask anew."""
_MESSAGES_A_TURN = 32


class Link:
    """A connected SEQPACKET socket in a Reactor."""

    def __init__(self, reactor: Reactor, sock: socket.socket, on_message: Callable[[dict[str, Any], list[int]], None]) -> None:
        self._reactor = reactor
        self._sock = sock
        self._on_message = on_message
        self._queue: deque[tuple[dict[str, Any], list[int]]] = deque()
        self.on_close: Callable[[], None] = _nothing
        self.open = True
        sock.setblocking(False)
        reactor.watch(sock.fileno(), READ, self._ready)

    def send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """Send or queue a message; `fds` now belong to the link. A link that is closed drops both."""
        fds = fds or []
        if not self.open:
            close_all(fds)
        elif self._queue or not self._try(message, fds):
            self._queue.append((message, fds))
            if len(self._queue) > QUEUE_LIMIT:
                self.close()
            elif self.open:
                self._reactor.watch(self._sock.fileno(), READ | WRITE, self._ready)

    def _try(self, message: dict[str, Any], fds: list[int]) -> bool:
        """Send now; False when the peer's buffer is full."""
        try:
            wire.send(self._sock, message, fds)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
        close_all(fds)
        return True

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if not self.open or not events & ~WRITE:
            return
        for _ in range(_MESSAGES_A_TURN):
            if not self.open or not self._receive():
                return

    def _flush(self) -> None:
        while self._queue and self.open:
            if not self._try(*self._queue[0]):
                return
            if self._queue:
                self._queue.popleft()
        if self.open:
            self._reactor.watch(self._sock.fileno(), READ, self._ready)

    def _receive(self) -> bool:
        try:
            message, fds = wire.recv(self._sock)
        except BlockingIOError:
            return False
        except (wire.WireError, OSError):  # garbage is answered like the end: whoever sent it cannot be talked to
            self.close()
            return False
        self._on_message(message, fds)
        return True

    @property
    def fd(self) -> int:
        """The socket's descriptor."""
        return self._sock.fileno()

    @property
    def flushed(self) -> bool:
        """Whether everything has been sent."""
        return not self._queue

    def drain(self) -> None:
        """Take the messages that have arrived already, before the end of the peer's process is acted upon."""
        while self.open and self._receive():
            pass

    def close(self) -> None:
        """Close the socket and drop what is queued; tells `on_close` once."""
        if not self.open:
            return
        self.open = False
        self._reactor.unwatch(self._sock.fileno())
        self._sock.close()
        for _message, fds in self._queue:
            close_all(fds)
        self._queue.clear()
        self.on_close()


def close_all(fds: list[int]) -> None:
    """Close descriptors and empty the list."""
    while fds:
        os.close(fds.pop())


def _nothing() -> None:
    """Stand for nobody who waits for the end."""
