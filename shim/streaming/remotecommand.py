"""Exec and attach: the streams of a client joined with those of a process, whichever protocol carries them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from shim.errors import WherryError
from shim.streaming import status
from shim.streaming.link import ConnectionGone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from shim.streaming.pipes import FdReader, FdWriter
    from shim.streaming.stream import Stream

log = structlog.get_logger()

SPDY_VERSIONS = {
    "v4.channel.k8s.io": 4,
    "v3.channel.k8s.io": 3,
    "v2.channel.k8s.io": 2,
    "channel.k8s.io": 1,
}
"""X-Stream-Protocol-Version to version: 2 ends, 3 resizes, 4 tells the exit code. Best first."""
WEBSOCKET_VERSIONS = {
    "v5.channel.k8s.io": (5, False),
    "v4.channel.k8s.io": (4, False),
    "v4.base64.channel.k8s.io": (4, True),
    "channel.k8s.io": (1, False),
    "base64.channel.k8s.io": (1, True),
}
"""Subprotocol to version and whether messages are text in base64; 5 can half-close stdin. Best first."""
DRAIN_SECONDS = 1.0
"""How long output is awaited, each time, once the process has ended: a grandchild may keep a pipe open for ever."""
_RESIZE_LIMIT = 4096


class Process(Protocol):
    """A running process, or a container one is attached to."""

    stdin: FdWriter | None
    stdout: FdReader | None
    stderr: FdReader | None

    async def wait(self) -> int | None:
        """Wait for the end; give the exit code, None where there is none to tell."""
        ...

    async def stdin_ended(self) -> None:
        """Act upon the end of the client's input."""
        ...

    async def resize(self, width: int, height: int) -> None:
        """Set the terminal's size."""
        ...

    async def close(self) -> None:
        """Let go of the process; one that has not ended has lost its client."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """The client's streams: those it asked for."""

    version: int
    error: Stream
    gone: asyncio.Future[None]
    close: Callable[[], Awaitable[None]]
    joined: Callable[[], None]
    """Tells the client that from now on it misses nothing."""
    stdin: Stream | None = None
    stdout: Stream | None = None
    stderr: Stream | None = None
    resize: Stream | None = None


async def converse(channels: Channels, start: Callable[[], Awaitable[Process]]) -> None:
    """Start the process, join its streams with the client's until it ends, tell how, and close the connection."""
    try:
        outcome = await _outcome(channels, start)
        with contextlib.suppress(ConnectionGone):
            text = status.encode(outcome, channels.version)
            if text:
                await channels.error.write(text)
        for stream in (channels.stdout, channels.stderr, channels.error):
            if stream is not None:
                stream.finish()
        if channels.stdin is not None:
            channels.stdin.discard()
    except ConnectionGone:
        log.debug("streaming client has gone")
    finally:
        await channels.close()


async def _outcome(channels: Channels, start: Callable[[], Awaitable[Process]]) -> dict[str, object]:
    try:
        process = await start()
    except WherryError as error:
        return status.of_error(str(error))
    finally:
        channels.joined()
    try:
        code = await _join(channels, process)
    except WherryError as error:
        return status.of_error(str(error))
    finally:
        await process.close()
    return status.of_exit(code or 0)


async def _join(channels: Channels, process: Process) -> int | None:
    waiting = asyncio.ensure_future(process.wait())
    outputs = [
        asyncio.ensure_future(_pump_out(reader, stream))
        for reader, stream in ((process.stdout, channels.stdout), (process.stderr, channels.stderr))
        if reader is not None and stream is not None
    ]
    others = [waiting, *outputs]
    if channels.stdin is not None and process.stdin is not None:
        others.append(asyncio.ensure_future(_pump_in(channels.stdin, process)))
    if channels.resize is not None:
        others.append(asyncio.ensure_future(_resizes(channels.resize, process)))
    try:
        await _unless_gone(channels, [waiting])
        for reader in (process.stdout, process.stderr):
            if reader is not None:
                reader.hurry(DRAIN_SECONDS)
        await _unless_gone(channels, outputs)
        return waiting.result()
    finally:
        for task in others:
            task.cancel()
        for failed in await asyncio.gather(*others, return_exceptions=True):
            if isinstance(failed, Exception) and not isinstance(failed, (ConnectionError, WherryError)):
                log.error("streaming failed unexpectedly", exc_info=failed)


async def _unless_gone(channels: Channels, tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Wait for all tasks; raise ConnectionGone when the client goes first."""
    left = set(tasks)
    while left:
        await asyncio.wait({*left, channels.gone}, return_when=asyncio.FIRST_COMPLETED)
        if channels.gone.done():
            raise ConnectionGone("the client has gone")
        left = {task for task in left if not task.done()}


async def _pump_out(reader: FdReader, stream: Stream) -> None:
    try:
        while data := await reader.read():
            await stream.write(data)
        stream.finish()
    except ConnectionGone:  # the process learns of it by SIGPIPE
        reader.close()


async def _pump_in(stream: Stream, process: Process) -> None:
    assert process.stdin is not None  # the caller has looked
    with contextlib.suppress(ConnectionGone):
        try:
            while data := await stream.read():
                await process.stdin.write(data)
        except BrokenPipeError:
            while await stream.read():  # the process reads no more; the client must not be held up
                pass
            return
        await process.stdin_ended()


async def _resizes(stream: Stream, process: Process) -> None:
    """Follow the sizes {"Width": columns, "Height": rows} that come one after another, with or without line ends."""
    decoder = json.JSONDecoder()
    text = ""
    with contextlib.suppress(ConnectionGone):
        while data := await stream.read():
            text = (text + data.decode("latin-1")).lstrip()
            while text:
                try:
                    value, end = decoder.raw_decode(text)
                except ValueError:
                    break
                text = text[end:].lstrip()
                await _resize(process, value)
            if len(text) > _RESIZE_LIMIT:
                text = ""


async def _resize(process: Process, value: object) -> None:
    if not isinstance(value, dict):
        return
    width, height = value.get("Width"), value.get("Height")
    if type(width) is int and type(height) is int and 0 < width < 1 << 16 and 0 < height < 1 << 16:
        with contextlib.suppress(WherryError, OSError):
            await process.resize(width, height)
