"""A container's stdin, stdout and stderr: the pipes or the terminal, read by the monitor's loop and written to its log."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
import time

from shim.monitor.attach import Fan, StdinPump
from shim.monitor.logs import Clock, Framer, LogFile
from shim.reactor import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shim.monitor.keeper import Rest
    from shim.monitor.rest import Luggage
    from shim.reactor import Reactor

READ_SIZE = 64 * 1024
"""Bytes of one read: larger ones were slower, they leave the processor's cache."""
PIPE_SIZE = 256 * 1024
"""Bytes a container may write before it waits for the monitor."""
_READS_A_TURN = 8


class Stream:
    """The reading end of a container's stdout, stderr or terminal."""

    __slots__ = ("_fd", "_held", "_reactor", "_sink", "on_end")

    def __init__(self, reactor: Reactor, fd: int, sink: Callable[[bytes], None]) -> None:
        if fd >= 0:
            os.set_blocking(fd, False)
        self._reactor = reactor
        self._fd = fd
        self._sink = sink
        self._held = False
        self.on_end: Callable[[], None] = _nothing

    @property
    def open(self) -> bool:
        """Whether a writer may still exist."""
        return self._fd >= 0

    @property
    def fd(self) -> int:
        """The descriptor, -1 once closed."""
        return self._fd

    def start(self) -> None:
        """Begin to read, unless it has ended."""
        if self._fd >= 0:
            self._reactor.watch(self._fd, READ, self._ready)

    def hold(self, wanted: bool) -> None:
        """Stop to read, which makes the writer wait, or go on."""
        if wanted == self._held or self._fd < 0:
            return
        self._held = wanted
        if wanted:
            self._reactor.unwatch(self._fd)
        else:
            self.start()

    @property
    def held(self) -> bool:
        """Whether its writer has to wait."""
        return self._held

    def _ready(self, _events: int) -> None:
        for _ in range(_READS_A_TURN):
            if self._read_once() < READ_SIZE // 2 or self._held:
                return

    def _read_once(self) -> int:
        """Read one chunk; 0 when there is nothing now or the stream has ended."""
        if self._fd < 0:
            return 0
        try:
            chunk = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the last user of the terminal closed it
                raise
            chunk = b""
        if not chunk:
            self.close()
            return 0
        self._sink(chunk)
        return len(chunk)

    def drain(self) -> None:
        """Take what is there now, at most what the pipe can hold: a leaked writer must not keep us here."""
        taken = 0
        while taken <= PIPE_SIZE:
            got = self._read_once()
            if not got:
                return
            taken += got

    def close(self) -> None:
        """Stop reading; tells `on_end` once."""
        if self._fd >= 0:
            self._reactor.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1
            self.on_end()


class Stdio:
    """What a container's init gets as 0, 1 and 2, and where it goes from there."""

    def __init__(self, reactor: Reactor, *, terminal: bool, stdin: bool, stdin_once: bool = False) -> None:
        """Nothing is open before `open` or `wake`."""
        self._reactor = reactor
        self._terminal = terminal
        self._stdin = stdin
        self._stdin_once = stdin_once
        self._fans: dict[str, Fan] = {}
        self._pump: StdinPump | None = None
        self._clock = Clock()
        self.log: LogFile | None = None
        self._streams: list[tuple[Stream, Framer]] = []
        self._theirs: list[int] = []
        self.terminal_fd = -1
        self.stdin_fd = -1

    def open(self, log_path: str, log_directory: str = "") -> None:
        """Open the log and make the pipes; raises OSError, FailedPrecondition."""
        self.log = LogFile(log_path, below=log_directory) if log_path else None
        try:
            if not self._terminal:
                self._make_pipes()
        except BaseException:
            self.close()
            raise

    def _make_pipes(self) -> None:
        if self._stdin:
            reader, self.stdin_fd = os.pipe2(os.O_CLOEXEC)
            self._theirs.append(reader)
            os.set_blocking(self.stdin_fd, False)
        else:
            self._theirs.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        for name in ("stdout", "stderr"):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            self._theirs.append(writer)
            self._add(name, reader)
            with contextlib.suppress(OSError):  # over the user's limit a pipe keeps its 64 KiB
                fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE_SIZE)

    def rest(self, luggage: Luggage) -> dict[str, Any] | None:
        """Hand everything over to the keeper; None while somebody is attached, a line is unfinished or lines are lost."""
        busy = self._theirs or self._pump is not None or (self.log is not None and self.log.losing)
        if busy or any(self._fans.values()) or any(stream.held or framer.pending for stream, framer in self._streams):
            return None
        log = -1 if self.log is None else luggage.add(self.log.fd)
        return {
            "log": log,
            "lost": self.log.lost_bytes if self.log is not None else 0,
            "outputs": {framer.name: luggage.add_output(stream.fd, framer.name, log) for stream, framer in self._streams},
            "stdin": luggage.add(self.stdin_fd),
        }

    def wake(self, left: dict[str, Any], rest: Rest, log_path: str, log_directory: str = "") -> None:
        """Take over from the keeper what an earlier monitor left."""
        tails = {name: rest.tails.get(rest.fd(index)) for name, index in left["outputs"].items()}
        logs = [tail.log for tail in tails.values() if tail is not None and tail.log is not None]
        if left["log"] >= 0:
            self.log = logs[0] if logs else LogFile("", rest.fd(left["log"]))
            self.log.path, self.log.below = log_path, log_directory
            self.log.lost_bytes += left["lost"]
        self.stdin_fd = rest.fd(left["stdin"])
        for name, tail in tails.items():
            self._add(name, rest.fd(left["outputs"][name]), None if tail is None else tail.framer)
            if self._terminal:
                self.terminal_fd = rest.fd(left["outputs"][name])
        self.start()

    def _add(self, name: str, fd: int, framer: Framer | None = None) -> None:
        framer = framer or Framer(name)

        def sink(chunk: bytes) -> None:
            if self.log is not None:
                self.log.write(framer.feed(chunk, self._clock.stamp(time.time_ns())))
            fan.feed(chunk)

        def ended() -> None:
            self._finish(framer)
            fan.finish()

        stream = Stream(self._reactor, fd, sink)
        fan = self._fans[name] = Fan(self._reactor, stream.hold)
        if fd < 0:
            fan.finish()
        stream.on_end = ended
        self._streams.append((stream, framer))

    def _finish(self, framer: Framer) -> None:
        if self.log is not None and framer.pending:
            self.log.write(framer.finish(self._clock.stamp(time.time_ns())))

    @property
    def theirs(self) -> tuple[int, int, int]:
        """The container's ends, to be handed over before `start`; /dev/null thrice with a terminal."""
        if not self._theirs:
            self._theirs = [os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC) for _ in range(3)]
        first, second, third = self._theirs
        return first, second, third

    def adopt_terminal(self, master: int) -> None:
        """Read from the pty whose master the runtime sent."""
        self.terminal_fd = master
        self._add("stdout", master)

    def start(self) -> None:
        """Close the container's ends and begin to read ours."""
        self._close_theirs()
        for stream, _framer in self._streams:
            stream.start()

    def _close_theirs(self) -> None:
        theirs, self._theirs = self._theirs, []
        for fd in theirs:
            os.close(fd)

    def drain(self) -> None:
        """Log what the ended container left in its pipes, also an unfinished line."""
        for stream, framer in self._streams:
            stream.drain()
            self._finish(framer)
        for fan in self._fans.values():
            fan.finish()

    def attach(self, name: str, fd: int) -> None:
        """Join the pipe `fd`, ours from now on, to "stdin", "stdout" or "stderr"; one that is not there ends at once."""
        if name == "stdin" and self._open_stdin():
            assert self._pump is not None  # made by the line above
            self._pump.add(fd)
        elif name in self._fans:
            self._fans[name].add(fd)
        else:
            os.close(fd)

    def _open_stdin(self) -> bool:
        """Make the pump when there is something to write to."""
        if self._pump is None and self._stdin:
            if self._terminal and self.terminal_fd >= 0:
                self._pump = StdinPump(self._reactor, os.dup(self.terminal_fd), close_at_end=False)
            elif self.stdin_fd >= 0:
                self._pump = StdinPump(self._reactor, self.stdin_fd, close_at_end=self._stdin_once)
                self.stdin_fd = -1
        return self._pump is not None

    def resize(self, width: int, height: int) -> None:
        """Set the terminal's size in columns and rows (tty_ioctl(4)); without a terminal it does nothing."""
        if self.terminal_fd >= 0:
            fcntl.ioctl(self.terminal_fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def close(self) -> None:
        """Close everything; a second call does nothing."""
        self._close_theirs()
        for stream, _framer in self._streams:
            stream.close()
        for fan in self._fans.values():
            fan.close()
        if self._pump is not None:
            self._pump.close()
        if self.stdin_fd >= 0:
            os.close(self.stdin_fd)
            self.stdin_fd = -1
        self.terminal_fd = -1
        if self.log is not None:
            self.log.close()


def receive_terminal(connection: socket.socket) -> int:
    """Take the pty master that an OCI runtime sends over its console socket (SCM_RIGHTS, unix(7)); raise OSError."""
    _data, fds, _flags, _address = socket.recv_fds(connection, 4096, 4)
    for extra in fds[1:]:
        os.close(extra)
    if not fds:
        raise OSError(errno.EPROTO, "the runtime sent no terminal")
    os.set_inheritable(fds[0], False)
    return fds[0]


def _nothing() -> None:
    """Stand for nobody who waits for the end."""
