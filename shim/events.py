"""What happens to containers, told to whoever listens inside the daemon.

A listener that does not keep up loses events, never memory: its queue is bounded, and once it has overflowed the listener
is told so, by the end of its stream.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shim.store.containers import Container
    from shim.store.pods import Pod

QUEUE_LIMIT = 1000
"""Events kept for a listener that is busy."""


class EventKind(StrEnum):
    """CRI's ContainerEventType."""

    CREATED = "created"
    STARTED = "started"
    STOPPED = "stopped"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEvent:
    """One change of a container, or of a pod sandbox when the two ids are equal."""

    kind: EventKind
    container_id: str
    pod_id: str
    at: int
    """Nanoseconds since 1970."""
    pod: Pod | None
    """The pod at that moment; when it is the pod that is deleted, as it was last."""
    containers: tuple[Container, ...]
    """The pod's containers at that moment."""


class EventBus:
    """Hands every event to every listener; belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[ContainerEvent | None]] = set()
        self.closed = False

    @property
    def heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def publish(self, event: ContainerEvent) -> None:
        """Tell all listeners; never waits."""
        for queue in tuple(self._listeners):
            if queue.qsize() >= QUEUE_LIMIT:
                self._listeners.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    def close(self) -> None:
        """End all streams: the daemon stops."""
        self.closed = True
        for queue in self._listeners:
            queue.put_nowait(None)
        self._listeners.clear()

    async def listen(self) -> AsyncGenerator[ContainerEvent]:
        """Give events from now on; ends when the listener was too slow, or with the daemon."""
        if self.closed:
            return
        queue: asyncio.Queue[ContainerEvent | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._listeners.discard(queue)
