"""Interactive sessions: this terminal, or these pipes, joined with the streams of a remote command."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import struct
import sys
import termios
import tty
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shim.client.errors import ClientError
from shim.errors import WherryError
from shim.streaming import status
from shim.streaming.dial import RemoteCommand
from shim.streaming.link import ConnectionGone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shim.streaming.stream import Stream

DETACH = b"\x10\x11"
"""Ctrl-P Ctrl-Q: leaves an attached terminal without ending what runs there."""
_READ_SIZE = 32 * 1024
_STATUS_LIMIT = 64 * 1024


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What to join: which streams, and whether they are a terminal."""

    url: str
    stdin: bool
    tty: bool
    detachable: bool = False

    @property
    def names(self) -> list[str]:
        """The streams, as the CRI was asked for them."""
        return [*(["stdin"] if self.stdin else []), "stdout", *([] if self.tty else ["stderr"])]


def run(session: Session, *, when_joined: Callable[[], object] = _nothing) -> int | None:
    """Join the streams until the command ends and give its exit code; None when the detach keys were typed.

    `when_joined` is called once nothing the command writes can be missed. Raises ClientError.
    """
    with contextlib.ExitStack() as stack:
        if session.tty and session.stdin and sys.stdin.isatty():
            stack.enter_context(raw_terminal(sys.stdin.fileno()))
        try:
            return asyncio.run(_run(session, when_joined))
        except WherryError as error:
            raise ClientError(str(error)) from error


@contextlib.contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """Hand every key on as it is, also Ctrl-C; afterwards the terminal is as it was."""
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSADRAIN)  # what was typed ahead is meant for the command
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


async def _run(session: Session, when_joined: Callable[[], object]) -> int | None:
    command = await RemoteCommand.open(session.url, *session.names, tty=session.tty)
    await command.accepted()
    when_joined()
    left = asyncio.Event()
    background: list[asyncio.Task[None]] = []
    try:
        if session.stdin:
            background.append(asyncio.create_task(_send_input(command["stdin"], session, left)))
        if session.tty:
            background.append(asyncio.create_task(_send_sizes(command["resize"])))
        ending = asyncio.ensure_future(_receive(command, session))
        leaving = asyncio.ensure_future(left.wait())
        await asyncio.wait([ending, leaving], return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not ending.done():
            ending.cancel()
            await asyncio.wait([ending])
            return None
        return ending.result()
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await command.close()


async def _receive(command: RemoteCommand, session: Session) -> int:
    """Print what comes and give the exit code."""
    outputs = [_print(command["stdout"], sys.stdout.fileno())]
    if not session.tty:
        outputs.append(_print(command["stderr"], sys.stderr.fileno()))
    try:
        error = asyncio.ensure_future(command["error"].read_rest(_STATUS_LIMIT))
        await asyncio.gather(*outputs)
        code, message = status.exit_code(await error)
    except ConnectionGone:
        raise ClientError("the connection was lost") from None
    if message:
        raise ClientError(message)
    return code


async def _print(stream: Stream, fd: int) -> None:
    while data := await stream.read():
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]


class _Keys:
    """Finds the detach keys in what is typed."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._held = b""

    def take(self, data: bytes) -> tuple[bytes, bool]:
        """Give what to send, and whether the keys have come."""
        if not self._wanted:
            return data, False
        data, self._held = self._held + data, b""
        before, found, _after = data.partition(DETACH)
        if found:
            return before, True
        if data.endswith(DETACH[:1]):
            self._held, data = data[-1:], data[:-1]
        return data, False


async def _send_input(stream: Stream, session: Session, left: asyncio.Event) -> None:
    fd = sys.stdin.fileno()
    keys = _Keys(wanted=session.detachable and session.tty)
    with contextlib.suppress(ConnectionGone):
        while data := await _read(fd):
            data, leave = keys.take(data)
            if data:
                await stream.write(data)
            if leave:
                left.set()
                return
        stream.finish()


async def _read(fd: int) -> bytes:
    """Read what is there, without changing the descriptor, which others share."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(fd, _resolve, ready)
    except PermissionError:  # a regular file: it never has to be waited for
        return os.read(fd, _READ_SIZE)
    try:
        await ready
    finally:
        loop.remove_reader(fd)
    try:
        return os.read(fd, _READ_SIZE)
    except OSError:  # the terminal is gone
        return b""


async def _send_sizes(stream: Stream) -> None:
    """Tell the terminal's size now and whenever it changes."""
    changed = asyncio.Event()
    changed.set()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    try:
        while True:
            await changed.wait()
            changed.clear()
            size = _size()
            if size is not None:
                await stream.write(json.dumps({"Width": size[0], "Height": size[1]}).encode() + b"\n")
    except ConnectionGone:
        return
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


def _size() -> tuple[int, int] | None:
    for one in (sys.stdout, sys.stdin):
        with contextlib.suppress(OSError, ValueError):
            rows, columns = struct.unpack("HHHH", fcntl.ioctl(one.fileno(), termios.TIOCGWINSZ, bytes(8)))[:2]
            if rows and columns:
                return columns, rows
    return None


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
