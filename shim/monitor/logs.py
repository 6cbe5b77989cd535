"""A container's log in the CRI format: `RFC3339Nano stdout|stderr P|F text`.

The lines of one chunk are framed with two calls into C (`bytes.replace` finds and prefixes every line end), not line by
line: a container may write millions of lines a second. All lines that one read brought carry the time of that read.
A line over LINE_LIMIT is split into parts tagged P, the last one F, as containerd splits it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time

from shim.beneath import open_beneath
from shim.errors import FailedPrecondition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LINE_LIMIT = 16 * 1024
"""Bytes of text in one line of the log."""

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class Clock:
    """RFC 3339 timestamps with nanoseconds; the part down to the second is formatted once a second."""

    __slots__ = ("_prefix", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._prefix = b""

    def stamp(self, now_ns: int) -> bytes:
        """Give the UTC time `now_ns` with all nine digits, so that the text sorts as the time does."""
        second, fraction = divmod(now_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
        return b"%b%09dZ" % (self._prefix, fraction)


class Framer:
    """The unfinished line of one stream, and how chunks become lines of the log. Pure: no clock, no file."""

    __slots__ = ("_carry", "_full", "_part", "name")

    def __init__(self, stream: str) -> None:
        self.name = stream
        self._carry = b""
        self._full = f" {stream} F ".encode()
        self._part = f" {stream} P ".encode()

    @property
    def pending(self) -> int:
        """Bytes held back until their line ends; at most LINE_LIMIT."""
        return len(self._carry)

    def feed(self, chunk: bytes, stamp: bytes) -> list[bytes]:
        """Give the buffers to write for `chunk`: whole lines only, each buffer list ends with a line end."""
        data = self._carry + chunk if self._carry else chunk
        cut = data.rfind(b"\n") + 1
        if cut == len(data):
            self._carry = b""
            lines = data
        else:
            self._carry = data[cut:]
            lines = data[:cut] if cut else b""
        out: list[bytes] = []
        if lines:
            self._frame(lines, stamp, out)
        if len(self._carry) > LINE_LIMIT:
            self._split_carry(stamp, out)
        return out

    def _frame(self, lines: bytes, stamp: bytes, out: list[bytes]) -> None:
        full = stamp + self._full
        start = position = 0
        end = len(lines)
        while position < end:
            newline = lines.rfind(b"\n", position, position + LINE_LIMIT + 1)
            if newline >= 0:
                position = newline + 1
                continue
            if position > start:
                out += (full, lines[start : position - 1].replace(b"\n", b"\n" + full), b"\n")
            out += (stamp, self._part, lines[position : position + LINE_LIMIT], b"\n")
            start = position = position + LINE_LIMIT
        if end > start:
            body = lines[start:] if start else lines
            # One replacement too many, at the very end: cheaper to cut off than to copy the body without its line end.
            framed = body.replace(b"\n", b"\n" + full)
            out += (full, memoryview(framed)[: -len(full)])  # type: ignore[arg-type]  # writev takes any buffer

    def _split_carry(self, stamp: bytes, out: list[bytes]) -> None:
        carry = self._carry
        start = 0
        while len(carry) - start > LINE_LIMIT:
            out += (stamp, self._part, carry[start : start + LINE_LIMIT], b"\n")
            start += LINE_LIMIT
        self._carry = carry[start:]

    def finish(self, stamp: bytes) -> list[bytes]:
        """Give what is left at the end of the stream: a partial line, because its line end never came."""
        carry, self._carry = self._carry, b""
        return [stamp, self._part, carry, b"\n"] if carry else []


class LogFile:
    """The file at `path`; appended to, reopened after rotation, and never a reason to block the container.

    When the disk is full, lines are dropped and counted in `lost_bytes`; the file keeps whole lines only.
    """

    __slots__ = ("_fd", "_losing", "below", "lost_bytes", "on_loss", "path")

    def __init__(self, path: str, fd: int = -1, *, below: str = "") -> None:
        """Open or create the log, or go on with `fd`; raises OSError, FailedPrecondition for what is no regular file.

        `below` is a directory above it: from there on no symbolic link is followed, because who may write to a pod's log
        directory must not choose where the daemon writes.
        """
        self.path = path
        self.below = below
        self.lost_bytes = 0
        self.on_loss: Callable[[str], None] = _ignore
        self._losing = False
        self._fd = fd if fd >= 0 else _open(path, below)

    @property
    def fd(self) -> int:
        """The descriptor."""
        return self._fd

    @property
    def losing(self) -> bool:
        """Whether the last write failed."""
        return self._losing

    def write(self, buffers: list[bytes]) -> None:
        """Append whole lines; what does not fit on the disk is counted, reported once an episode, and dropped."""
        try:
            for index in range(0, len(buffers), 512):  # IOV_MAX is 1024
                self._write(buffers[index : index + 512])
        except OSError as error:
            if not self._losing:
                self._losing = True
                self.on_loss(f"{self.path}: {os.strerror(error.errno or 0)}")
            self.lost_bytes += sum(map(len, buffers))
        else:
            self._losing = False

    def _write(self, buffers: list[bytes]) -> None:
        total = sum(map(len, buffers))
        written = os.writev(self._fd, buffers)
        if written == total:
            return
        rest = memoryview(b"".join(buffers))
        try:
            while written < total:
                written += os.write(self._fd, rest[written:])
        except OSError as error:
            if error.errno in _NO_SPACE:
                self._cut_back(bytes(rest[:written]))
            raise

    def _cut_back(self, written: bytes) -> None:
        torn = len(written) - (written.rfind(b"\n") + 1)
        if torn:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - torn)

    def reopen(self) -> None:
        """Go on in a new file at the same path; on an error the old one stays in use."""
        fresh = _open(self.path, self.below)
        os.close(self._fd)
        self._fd = fresh

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open(path: str, below: str) -> int:
    try:
        fd = open_beneath(path, below, _FLAGS, 0o640) if below else os.open(path, _FLAGS, 0o640)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise FailedPrecondition(
            f"log path {path} leads through a symbolic link in the pod's log directory; remove it"
        ) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FailedPrecondition(f"log path {path} is not a regular file; remove it")
    os.set_blocking(fd, True)
    return fd


def _ignore(_reason: str) -> None:
    """Stand for nobody who wants to know."""
