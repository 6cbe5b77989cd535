"""wherryd's side of the spawner (see server.py). Asyncio; nothing here blocks."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from typing import TYPE_CHECKING, Any

from shim.errors import Unavailable, WherryError
from shim.wire_client import WireClient

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence


class SpawnerClient:
    """The link to the spawner; `closed` resolves when the spawner has died."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over wherryd's end of the pair that bootstrap made; needs a running loop."""
        self._link = WireClient(sock, "the spawner")
        self._link.on_event = self._event
        self._count = itertools.count(1)
        self._progress: dict[int, Callable[[dict[str, Any]], None]] = {}
        self.closed = self._link.closed

    def _event(self, message: dict[str, Any]) -> None:
        report = self._progress.get(message.get("job", -1))
        if report is not None:
            report(message["data"])

    async def start_monitor(self, pod_id: str, state_dir: str) -> int:
        """Start a pod's monitor and give its pid; <state_dir>/monitor.sock can be connected to.

        Raises AlreadyExists when that pod has one.
        """
        reply, _fds = await self._link.request({"op": "monitor.start", "pod_id": pod_id, "state_dir": state_dir})
        return int(reply["pid"])

    async def job(
        self,
        kind: str,
        params: dict[str, Any],
        *,
        fds: Sequence[int] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - the spawner keeps it: it has to kill the job
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Run a job and give its result; `fds` stay the caller's.

        Raises the shim error the job raised (one of another class comes as its nearest; `details` carries errno and path),
        DeadlineExceeded after `timeout` seconds, Internal when the job died, Unavailable when the spawner did. However it
        ends, also by cancellation, no process of the job is left when this returns.
        """
        number = next(self._count)
        if on_progress is not None:
            self._progress[number] = on_progress
        message = {"op": "job", "job": number, "kind": kind, "params": params, "timeout": timeout}
        running = asyncio.ensure_future(self._link.request(message, fds))
        try:
            reply, extra = await asyncio.shield(running)
        except asyncio.CancelledError:
            await self._end(number, running)
            raise
        finally:
            self._progress.pop(number, None)
        for fd in extra:
            os.close(fd)
        return reply

    async def _end(self, number: int, running: asyncio.Future[tuple[dict[str, Any], list[int]]]) -> None:
        """Kill a job and wait for its end, even when our caller is cancelled once more meanwhile."""
        with contextlib.suppress(Unavailable):
            self._link.post({"seq": 0, "op": "job.kill", "job": number})
        while not running.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        with contextlib.suppress(WherryError, asyncio.CancelledError):
            for fd in running.result()[1]:
                os.close(fd)

    async def close(self) -> None:
        """Drop the link: the spawner kills its jobs and ends."""
        self._link.close()
