"""wherryd's end of a wire: requests with numbers, replies in any order, events. Asyncio; nothing here blocks."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections import deque
from typing import TYPE_CHECKING, Any

from shim import wire
from shim.errors import Unavailable

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

Reply = tuple[dict[str, Any], list[int]]


class WireClient:
    """A link over which many requests run side by side."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        """Take over a connected socket; `name` is how errors call the peer."""
        sock.setblocking(False)
        self._sock = sock
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._count = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._queue: deque[tuple[dict[str, Any], list[int]]] = deque()
        self.on_event: Callable[[dict[str, Any]], None] = _nothing
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(sock.fileno(), self._readable)

    async def request(
        self, message: dict[str, Any], fds: Sequence[int] = (), *, on_cancel: Callable[[int], None] | None = None
    ) -> Reply:
        """Send a request and give its reply with the descriptors that came (the caller's now).

        `fds` stay the caller's. Raises the error the peer answered with, Unavailable when the link ends. When the awaiting
        task is cancelled `on_cancel` is told the request's number, and a late reply is dropped.
        """
        number = next(self._count)
        future: asyncio.Future[Reply] = self._loop.create_future()
        self.post(message | {"seq": number}, fds)
        self._waiting[number] = future
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                _close(future.result()[1])
            elif on_cancel is not None:
                on_cancel(number)
            raise
        finally:
            self._waiting.pop(number, None)

    def post(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send without a reply; raise Unavailable when the link has ended."""
        if self.closed.done():
            raise Unavailable(f"{self._name} is gone")
        if not self._queue and self._try(message, list(fds)):
            return
        if self.closed.done():
            raise Unavailable(f"{self._name} is gone")
        self._queue.append((message, [os.dup(fd) for fd in fds]))
        self._loop.add_writer(self._sock.fileno(), self._writable)

    def _try(self, message: dict[str, Any], fds: list[int]) -> bool:
        try:
            wire.send(self._sock, message, fds)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return False
        return True

    def _writable(self) -> None:
        while self._queue:
            message, fds = self._queue[0]
            if not self._try(message, fds):
                return
            self._queue.popleft()
            _close(fds)
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        for _ in range(64):
            try:
                message, fds = wire.recv(self._sock)
            except BlockingIOError:
                return
            except (wire.WireError, OSError):
                self.close()
                return
            self._dispatch(message, fds)
            if self.closed.done():
                return

    def _dispatch(self, message: dict[str, Any], fds: list[int]) -> None:
        number = message.get("seq")
        if "ok" not in message and "error" not in message:
            _close(fds)
            self.on_event(message)
            return
        future = self._waiting.get(number) if isinstance(number, int) else None
        if future is None or future.done():
            _close(fds)
        elif "error" in message:
            _close(fds)
            future.set_exception(wire.error_of(message["error"]))
        else:
            future.set_result((message["ok"], fds))

    def close(self) -> None:
        """End the link; every waiting request raises Unavailable. A second call does nothing."""
        if self.closed.done():
            return
        self.closed.set_result(None)
        with contextlib.suppress(RuntimeError):  # the loop may be closed already
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for _message, fds in self._queue:
            _close(fds)
        self._queue.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Unavailable(f"{self._name} is gone"))


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


def _nothing(_message: dict[str, Any]) -> None:
    """Stand for nobody who listens."""
