"""Attach: what a container writes goes to its log and to every attached client; what they send, it reads.

A client that is slower than the container slows it down, because nothing may be lost and memory is bounded; one that takes
nothing at all for STALL_SECONDS is detached, because a forgotten terminal must not stop a service.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque

from shim.reactor import HANGUP, READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.reactor import Reactor, Timer

STALL_SECONDS = 30.0
_READ_SIZE = 64 * 1024


class _Output:
    """The writing end of one client's pipe."""

    def __init__(self, fan: Fan, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fan = fan
        self._fd = fd
        self._pending: deque[bytes] = deque()
        self._ending = False
        self._stall: Timer | None = None
        fan.reactor.watch(fd, 0, self._ready)  # also without events a broken pipe is told (epoll_ctl(2))

    @property
    def blocked(self) -> bool:
        return bool(self._pending)

    def offer(self, chunk: bytes) -> None:
        if self._fd < 0:
            return
        self._pending.append(chunk)
        if len(self._pending) == 1:
            self._flush()
            if self.blocked:
                self._fan.reactor.watch(self._fd, WRITE, self._ready)
                self._arm()

    def _arm(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
        self._stall = self._fan.reactor.at(STALL_SECONDS, self.close) if self.blocked else None

    def _ready(self, events: int) -> None:
        if events & HANGUP:
            self.close()
            return
        self._flush()
        self._arm()
        if self._fd >= 0 and not self.blocked:
            self._fan.reactor.watch(self._fd, 0, self._ready)
            self._fan.unblocked()

    def _flush(self) -> None:
        try:
            while self._pending:
                chunk = self._pending[0]
                written = os.write(self._fd, chunk)
                if written < len(chunk):
                    self._pending[0] = chunk[written:]
                    return
                self._pending.popleft()
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if self._ending:
            self.close()

    def finish(self) -> None:
        """Close once everything was written."""
        self._ending = True
        if not self.blocked:
            self.close()

    def close(self) -> None:
        """Close now; a second call does nothing."""
        if self._fd < 0:
            return
        self._pending.clear()
        self._arm()
        self._fan.reactor.unwatch(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._fan.leave(self)


class Fan:
    """The attached clients of one output stream."""

    __slots__ = ("_ended", "_outputs", "_pace", "reactor")

    def __init__(self, reactor: Reactor, pace: Callable[[bool], None]) -> None:
        """`pace(True)` holds the stream, `pace(False)` lets it go on."""
        self.reactor = reactor
        self._pace = pace
        self._outputs: list[_Output] = []
        self._ended = False

    def __len__(self) -> int:
        """Count those who are attached."""
        return len(self._outputs)

    def add(self, fd: int) -> None:
        """Attach a client, whose descriptor is ours now; it sees the end at once when the stream is over."""
        output = _Output(self, fd)
        self._outputs.append(output)
        if self._ended:
            output.finish()

    def feed(self, chunk: bytes) -> None:
        """Hand a chunk to everybody."""
        if self._outputs:
            for output in list(self._outputs):
                output.offer(chunk)
            self._set_pace()

    def _set_pace(self) -> None:
        self._pace(any(output.blocked for output in self._outputs))

    def unblocked(self) -> None:
        """Look again whether somebody is slow."""
        self._set_pace()

    def leave(self, output: _Output) -> None:
        """Forget a client."""
        self._outputs.remove(output)
        self._set_pace()

    def finish(self) -> None:
        """Let everybody see the end, after what is on its way."""
        self._ended = True
        for output in list(self._outputs):
            output.finish()

    def close(self) -> None:
        """Drop everybody."""
        self._ended = True
        for output in list(self._outputs):
            output.close()


class StdinPump:
    """Joins the input of attached clients, chunk by chunk, in the container's standard input."""

    def __init__(self, reactor: Reactor, fd: int, *, close_at_end: bool) -> None:
        """Own `fd`, the pipe or the terminal; `close_at_end`: when the first client's input ends, the container's does."""
        os.set_blocking(fd, False)
        self._reactor = reactor
        self._fd = fd
        self._close_at_end = close_at_end
        self._queue: deque[tuple[int, bytes]] = deque()
        self._inputs: set[int] = set()
        self._closing = False

    def add(self, fd: int) -> None:
        """Take a client's pipe, which is ours now."""
        os.set_blocking(fd, False)
        if self._closing:
            os.close(fd)
            return
        self._inputs.add(fd)
        self._listen(fd)

    def _listen(self, fd: int) -> None:
        self._reactor.watch(fd, READ, lambda _events: self._read(fd))

    def _read(self, fd: int) -> None:
        try:
            chunk = os.read(fd, _READ_SIZE)
        except BlockingIOError:
            return
        if not chunk:
            self._leave(fd)
            if self._close_at_end:
                self._closing = True
                self._settle()
            return
        self._reactor.unwatch(fd)  # one chunk of each client at a time
        self._queue.append((fd, chunk))
        if len(self._queue) == 1:
            self._write()

    def _leave(self, fd: int) -> None:
        if fd in self._inputs:
            self._inputs.remove(fd)
            self._reactor.unwatch(fd)
            os.close(fd)

    def _write(self) -> None:
        while self._queue:
            owner, chunk = self._queue[0]
            try:
                rest = chunk[os.write(self._fd, chunk) :]
            except BlockingIOError:
                rest = chunk
            except OSError:  # nobody reads any more: clients may go on, into nothing
                rest = b""
            if rest:
                self._queue[0] = (owner, rest)
                self._reactor.watch(self._fd, WRITE, lambda _events: self._write())
                return
            self._queue.popleft()
            if owner in self._inputs:
                self._listen(owner)
        self._reactor.unwatch(self._fd)
        self._settle()

    def _settle(self) -> None:
        if self._closing and not self._queue:
            self.close()

    def close(self) -> None:
        """Close everything; a second call does nothing."""
        self._closing = True
        self._queue.clear()
        for fd in list(self._inputs):
            self._leave(fd)
        if self._fd >= 0:
            self._reactor.unwatch(self._fd)
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1
