"""The daemon's links to its monitors, one a pod."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import shutil
from typing import TYPE_CHECKING, Protocol

import structlog

from shim.errors import Unavailable, WherryError
from shim.monitor.client import MonitorClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shim.monitor.protocol import Exited, LogLost, Oom

log = structlog.get_logger()

SHUTDOWN_SECONDS = 10.0
"""Time a monitor has to end itself."""


class Starter(Protocol):
    """The part of the spawner's client that is used here."""

    async def start_monitor(self, pod_id: str, state_dir: str) -> int:
        """Start a monitor; a connect to <state_dir>/monitor.sock works when this returns."""


class Monitors:
    """Starts, finds and ends monitors, and hands their events on."""

    def __init__(self, state: str, spawner: Starter) -> None:
        self._state = state
        self._spawner = spawner
        self._clients: dict[str, MonitorClient] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self.on_event: Callable[[str, Exited | Oom | LogLost], Awaitable[None]] = _ignore_event
        self.on_lost: Callable[[str], Awaitable[None]] = _ignore_loss

    def directory(self, pod_id: str) -> str:
        """Directory of a pod's runtime state."""
        return f"{self._state}/pods/{pod_id}"

    def get(self, pod_id: str) -> MonitorClient:
        """Give the link to a pod's monitor; raise Unavailable when there is none."""
        client = self._clients.get(pod_id)
        if client is None:
            raise Unavailable(f"the monitor of pod {pod_id} is not running; stop and remove the pod")
        return client

    async def start(self, pod_id: str) -> MonitorClient:
        """Start the monitor of a pod and connect to it."""
        directory = self.directory(pod_id)
        os.makedirs(directory, 0o700, exist_ok=True)
        await self._spawner.start_monitor(pod_id, directory)
        return await self.connect(pod_id)

    async def connect(self, pod_id: str) -> MonitorClient:
        """Connect to a running monitor; raise Unavailable when there is none."""
        client = await MonitorClient.connect(f"{self.directory(pod_id)}/monitor.sock")
        self._clients[pod_id] = client
        self._watchers[pod_id] = asyncio.create_task(self._watch(pod_id, client), context=contextvars.Context())
        return client

    async def ensure(self, pod_id: str) -> MonitorClient:
        """Give the link to a pod's monitor, starting a new monitor when the old one is gone: to clean up behind it."""
        client = self._clients.get(pod_id)
        if client is not None:
            return client
        try:
            return await self.connect(pod_id)
        except Unavailable:
            log.warning("starting a new monitor to clean up behind a lost one", pod=pod_id)
            return await self.start(pod_id)

    async def stop(self, pod_id: str) -> None:
        """End the monitor and remove its directory; harmless when it is gone."""
        client = self._clients.pop(pod_id, None)
        watcher = self._watchers.pop(pod_id, None)
        if client is not None:
            try:
                async with asyncio.timeout(SHUTDOWN_SECONDS):
                    await client.shutdown()
            except (WherryError, TimeoutError, OSError) as error:
                log.warning("monitor did not end", pod=pod_id, error=str(error))
        await _end(watcher)
        if client is not None:
            await client.close()
        shutil.rmtree(self.directory(pod_id), ignore_errors=True)

    async def close(self) -> None:
        """Drop all links; the monitors go on."""
        for watcher in self._watchers.values():
            watcher.cancel()
        for client in self._clients.values():
            with contextlib.suppress(Exception):
                await client.close()
        self._clients.clear()
        self._watchers.clear()

    async def _watch(self, pod_id: str, client: MonitorClient) -> None:
        async for event in client.events:
            try:
                await self.on_event(pod_id, event)
            except Exception:
                log.exception("event of a monitor was not handled", pod=pod_id, event_type=type(event).__name__)
        if self._clients.get(pod_id) is client:
            del self._clients[pod_id]
            self._watchers.pop(pod_id, None)
            await client.close()
            await self.on_lost(pod_id)


async def _end(task: asyncio.Task[None] | None) -> None:
    if task is None or task is asyncio.current_task():
        return
    task.cancel()
    await asyncio.wait([task])


async def _ignore_event(_pod_id: str, _event: object) -> None:
    """Do nothing, until the daemon says what to do."""


async def _ignore_loss(_pod_id: str) -> None:
    """Do nothing, until the daemon says what to do."""
