"""Run the jobs of shim.image.unpack through the spawner, feeding them bytes as they arrive."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Any, Protocol

from shim.image.tasks import settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

PIPE_SIZE = 1024 * 1024
"""Bytes between the download and the unpacker; more would only hide which of the two is slow."""


class Spawner(Protocol):
    """The part of shim.spawner.client.SpawnerClient that images need."""

    async def job(
        self,
        kind: str,
        params: dict[str, Any],
        *,
        fds: Sequence[int] = (),
        timeout: float | None,  # noqa: ASYNC109 - the spawner's deadline, which kills the job
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Run one job; cancelling kills it."""


class Jobs:
    """The jobs of the image store."""

    def __init__(self, spawner: Spawner) -> None:
        self._spawner = spawner

    async def run(self, params: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        """Run one operation of shim.image.unpack.job; raise the errors of shim.errors."""
        return await self._spawner.job("unpack", params, fds=fds, timeout=None)

    async def remove(self, paths: list[str]) -> None:
        """Delete directory trees."""
        if paths:
            await self._spawner.job("rmtree", {"paths": paths}, timeout=None)

    async def feed(self, params: dict[str, Any], fds: Sequence[int], chunks: AsyncGenerator[bytes, None]) -> dict[str, Any]:
        """Run an operation whose first descriptor is a pipe that brings `chunks`; the slower side sets the pace."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        pipe = _Pipe(writing)
        try:
            working = asyncio.ensure_future(self.run(params, (reading, *fds)))
            feeding = asyncio.ensure_future(pipe.feed(chunks))
            try:
                await asyncio.wait((working, feeding), return_when=asyncio.FIRST_COMPLETED)
                if feeding.done() and not working.done():
                    feeding.result()
                return await working
            finally:
                for task in (working, feeding):
                    task.cancel()
                    await settle(task)
                if not feeding.cancelled():
                    feeding.exception()
        finally:
            pipe.close()
            os.close(reading)


class _Pipe:
    """The writing end of a pipe."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_blocking(fd, False)
        with contextlib.suppress(OSError):  # beyond the user's quota of pipe pages; the default size serves too
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)

    def close(self) -> None:
        """Close it; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def feed(self, chunks: AsyncGenerator[bytes, None]) -> None:
        """Write all chunks, then close."""
        try:
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    await self._write(memoryview(chunk))
        finally:
            self.close()

    async def _write(self, view: memoryview) -> None:
        loop = asyncio.get_running_loop()
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                room = loop.create_future()
                loop.add_writer(self._fd, _wake, room)
                try:
                    await room
                finally:
                    loop.remove_writer(self._fd)


def _wake(room: asyncio.Future[None]) -> None:
    if not room.done():
        room.set_result(None)
