"""Pipes, terminals and sockets of the process that is streamed, on the event loop."""

from __future__ import annotations

import asyncio
import errno
import os

READ_SIZE = 64 * 1024


class FdReader:
    """Reads a descriptor that it owns."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] | None = None
        self._patience: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._impatient = False

    @property
    def open(self) -> bool:
        """Whether it was not closed."""
        return self._fd >= 0

    async def read(self) -> bytes:
        """Give the next bytes; b"" at the end, when closed, and when patience (see `hurry`) is over."""
        while self._fd >= 0:
            try:
                return os.read(self._fd, READ_SIZE)
            except BlockingIOError:
                if self._impatient:
                    return b""
                await self._readable()
            except OSError as error:
                if error.errno in {errno.EIO, errno.ECONNRESET}:  # EIO: the last user of the terminal closed it
                    return b""
                raise
        return b""

    async def _readable(self) -> None:
        self._ready = self._loop.create_future()
        self._loop.add_reader(self._fd, self._wake)
        self._arm()
        try:
            await self._ready
        finally:
            self._ready = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._fd >= 0:
                self._loop.remove_reader(self._fd)

    def _wake(self) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def _arm(self) -> None:
        if self._patience is not None and self._timer is None:
            self._timer = self._loop.call_later(self._patience, self._give_up)

    def _give_up(self) -> None:
        self._impatient = True
        self._wake()

    def hurry(self, seconds: float) -> None:
        """End when nothing came for so long: the writer we know has ended, and others may keep the descriptor for ever."""
        self._patience = seconds
        if self._ready is not None:
            self._arm()

    def close(self) -> None:
        """Close; a second call does nothing."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            fd, self._fd = self._fd, -1
            os.close(fd)
            self._wake()


class FdWriter:
    """Writes to a descriptor that it owns."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] | None = None

    async def write(self, data: bytes) -> None:
        """Write all; raise BrokenPipeError when nobody reads any more."""
        view = memoryview(data)
        while view:
            if self._fd < 0:
                raise BrokenPipeError(errno.EPIPE, "closed")
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                raise BrokenPipeError(errno.EPIPE, os.strerror(error.errno or 0)) from error

    async def _writable(self) -> None:
        self._ready = self._loop.create_future()
        self._loop.add_writer(self._fd, self._wake)
        try:
            await self._ready
        finally:
            self._ready = None
            if self._fd >= 0:
                self._loop.remove_writer(self._fd)

    def _wake(self) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def close(self) -> None:
        """Close; a second call does nothing."""
        if self._fd >= 0:
            self._loop.remove_writer(self._fd)
            fd, self._fd = self._fd, -1
            os.close(fd)
            self._wake()
