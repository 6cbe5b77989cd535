"""The caller's terminal in raw mode, and bytes between it and the container's (termios(3), pty(7))."""

from __future__ import annotations

import fcntl
import os
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CHUNK = 32 * 1024


class Terminal:
    """The master of the container's terminal beside our standard input and output.

    `close` gives the caller's terminal its mode back.
    """

    def __init__(self, master: int) -> None:
        self.master = master
        self._saved: list[Any] | None = None
        self.copy_size()
        _keep_line_ends(master)
        if os.isatty(0):
            self._saved = termios.tcgetattr(0)
            _make_raw(0, self._saved)

    def copy_size(self) -> None:
        """Give the container's terminal the size of ours, when we have one."""
        for fd in (0, 1, 2):
            try:
                size = fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8)
            except OSError:
                continue
            if size[:4] != b"\0" * 4:
                fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)
            return

    def sources(self) -> list[int]:
        """Give the descriptors to wait for."""
        return [self.master, 0]

    def transfer(self, fd: int) -> bool:
        """Move what can be read from one source; tell whether that source goes on."""
        try:
            data = os.read(fd, _CHUNK)
        except OSError:  # EIO: the last process has closed the terminal
            data = b""
        if fd == self.master:
            _write_all(1, data)
            return bool(data)
        _write_all(self.master, data)
        return bool(data)

    def drain(self) -> None:
        """Move what the container has written and nobody has read; the process has ended, so this ends."""
        import select

        poll = select.poll()
        poll.register(self.master, select.POLLIN)
        while poll.poll(0) and self.transfer(self.master):
            continue

    def close(self) -> None:
        """Restore the caller's terminal."""
        if self._saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
            self._saved = None
        os.close(self.master)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError:
        return  # the reader has gone: as with a terminal that was closed, the rest is lost


def _keep_line_ends(master: int) -> None:
    """Let line feeds pass as they are: the caller's terminal, if there is one, adds the carriage returns."""
    mode = termios.tcgetattr(master)
    mode[1] &= ~termios.ONLCR
    termios.tcsetattr(master, termios.TCSANOW, mode)


def _make_raw(fd: int, saved: list[Any]) -> None:
    mode = [*saved[:6], list(saved[6])]
    mode[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON)
    mode[0] &= ~(termios.IGNBRK | termios.PARMRK | termios.INLCR | termios.IGNCR)
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN | termios.ISIG)
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, mode)
