"""Waiting for a directory to change (inotify(7)), so that following a log neither spins nor lags."""

from __future__ import annotations

import ctypes
import os
import select

IN_MODIFY = 0x2
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
_EVENTS = IN_MODIFY | IN_MOVED_TO | IN_CREATE


class DirectoryWatch:
    """A watch on the entries of one directory; close it when done."""

    def __init__(self, directory: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = int(libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        if self._fd < 0:
            raise self._error("inotify_init1", directory)
        if libc.inotify_add_watch(self._fd, os.fsencode(directory), _EVENTS) < 0:
            error = self._error("inotify_add_watch", directory)
            self.close()
            raise error

    @staticmethod
    def _error(call: str, directory: str) -> OSError:
        number = ctypes.get_errno()
        return OSError(number, f"{call}: {os.strerror(number)}", directory)

    def wait(self, seconds: float) -> None:
        """Return when something has changed since the last call, at the latest after `seconds`."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if poll.poll(seconds * 1000):
            os.read(self._fd, 1 << 16)

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)
