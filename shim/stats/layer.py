"""How much disk writable layers take: measured beside everything else, and remembered. Nobody ever waits for it.

A result is given as long as there is no better one; asking for one that is old has it measured again.

Small layers are walked by the statistics thread, a few milliseconds at a time; large ones by a job, a process of its own,
however long that takes. The longer the last walk took, the older its result may get.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from shim.stats.values import LayerUsage
from shim.stats.walk import BLOCK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container

    Walk = Callable[[str], Awaitable[tuple[int, int] | None]]

log = structlog.get_logger()

FRESH_SECONDS = 10.0
"""Age up to which a result is not measured again."""
PATIENCE = 30.0
"""A walk that took so long makes its result fresh for so many times as long."""


@dataclass(slots=True)
class _Entry:
    usage: LayerUsage
    stale_at: float
    measuring: bool = False


class LayerUsages:
    """The results by container; belongs to the event loop's thread.

    `walk_small` walks beside the loop and gives None for a large tree, which `walk_large` then walks.
    """

    def __init__(self, walk_small: Walk, walk_large: Walk) -> None:
        self._walk_small = walk_small
        self._walk_large = walk_large
        self._entries: dict[str, _Entry] = {}
        self._waiting: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    def get(self, container_id: str, directory: str) -> LayerUsage | None:
        """Give the last result, and see that an old one is replaced soon; None when there is no such layer.

        Before the first walk it is what the layer's top directory alone takes: a layer begins empty.
        """
        entry = self._entries.get(container_id)
        if entry is None:
            try:
                used = os.lstat(directory).st_blocks * BLOCK
            except OSError:
                return None
            usage = LayerUsage(at=time.time_ns(), used_bytes=used, inodes=1)
            entry = self._entries[container_id] = _Entry(usage=usage, stale_at=0.0)
        if not entry.measuring and time.monotonic() >= entry.stale_at:
            entry.measuring = True
            self._waiting[container_id] = directory
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._work())
        return entry.usage

    def keep(self, known: Container[str]) -> None:
        """Forget all but the known ids."""
        for container_id in [one for one in self._entries if one not in known]:
            del self._entries[container_id]

    async def settled(self) -> None:
        """Wait until nothing is being measured."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        while self._waiting:
            container_id, directory = next(iter(self._waiting.items()))
            del self._waiting[container_id]
            began = time.monotonic()
            found = None
            try:
                found = await self._walk_small(directory) or await self._walk_large(directory)
            except Exception as error:  # noqa: BLE001 - the next one has to be measured all the same
                log.warning("a writable layer was not measured", container=container_id, error=str(error))
            self._note(container_id, found, time.monotonic() - began)

    def _note(self, container_id: str, found: tuple[int, int] | None, took: float) -> None:
        entry = self._entries.get(container_id)
        if entry is None:
            return
        entry.measuring = False
        entry.stale_at = time.monotonic() + max(FRESH_SECONDS, PATIENCE * took)
        if found is not None:
            entry.usage = LayerUsage(at=time.time_ns(), used_bytes=found[0], inodes=found[1])
