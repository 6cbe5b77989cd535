"""What happens to containers, told to whoever listens inside the daemon.

A listener that does not keep up loses events, never memory: its queue is bounded, and once it has overflowed the listener
is told so, by the end of its stream. What ended while no daemon ran is found out before anybody can listen; it is kept for
the first who does.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shim.store.containers import Container
    from shim.store.pods import Pod

QUEUE_LIMIT = 1000
"""Events kept for a listener that is busy, and from recovery."""
KEPT_SECONDS = 60.0
"""How long the events of recovery are news: a client that listened before connects again much sooner."""


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
        self._found: list[ContainerEvent] = []
        self._keep_until = 0.0
        self.recovering = False
        self.closed = False

    @property
    def heard(self) -> bool:
        """Whether anybody listens, or will be told of this later."""
        return bool(self._listeners) or self.recovering

    def recovered(self) -> None:
        """Note that what is published from now on is told to those who listen, and nobody else."""
        self.recovering = False
        self._keep_until = time.monotonic() + KEPT_SECONDS

    def publish(self, event: ContainerEvent) -> None:
        """Tell all listeners; never waits."""
        if self.recovering and len(self._found) < QUEUE_LIMIT:
            self._found.append(event)
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
        """Give events from now on, to the first listener those of recovery; ends when it was too slow, or with the daemon."""
        if self.closed:
            return
        queue: asyncio.Queue[ContainerEvent | None] = asyncio.Queue()
        self._listeners.add(queue)
        found, self._found = self._found, []
        try:
            if time.monotonic() < self._keep_until:
                for event in found:
                    yield event
            while (news := await queue.get()) is not None:
                yield news
        finally:
            self._listeners.discard(queue)
