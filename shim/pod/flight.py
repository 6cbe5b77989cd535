"""Calls that are carried out once however often they are asked for.

kubelet repeats a request whose answer it did not get. The repetition joins the running call instead of colliding with it.
A call whose last caller has gone is cancelled, which makes it undo itself; one that must not stop half-way (removal) is
detached and goes on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from shim.errors import AlreadyExists

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

T = TypeVar("T")

log = structlog.get_logger()


class _Flight:
    __slots__ = ("ending", "task", "token", "waiters")

    def __init__(self, task: asyncio.Task[Any], token: object) -> None:
        self.task = task
        self.token = token
        self.waiters = 0
        self.ending = False


class Flights:
    """The running calls by key."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight] = {}

    async def join(
        self,
        key: Hashable,
        start: Callable[[], Coroutine[Any, Any, T]],
        *,
        token: object = None,
        detached: bool = False,
    ) -> T:
        """Give the result of the call `key`, started now unless it runs already.

        `token` stands for what is asked: joining a call with another token raises AlreadyExists. A call that is being
        undone is waited for and then made anew.
        """
        flight = await self._find(key, token)
        if flight is None:
            flight = _Flight(asyncio.create_task(start()), token)
            self._flights[key] = flight
            flight.task.add_done_callback(lambda task: self._landed(key, task))
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if flight.waiters == 1 and not detached and not flight.task.done():
                flight.ending = True
                flight.task.cancel()
                await asyncio.wait([flight.task])  # what it made is gone when the call ends
            raise
        finally:
            flight.waiters -= 1

    async def _find(self, key: Hashable, token: object) -> _Flight | None:
        while (flight := self._flights.get(key)) is not None:
            if not flight.ending:
                if flight.token != token:
                    raise AlreadyExists(f"{key} is being carried out already, with another configuration")
                return flight
            await asyncio.wait([flight.task])
        return None

    def _landed(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
        if not task.cancelled() and (error := task.exception()) is not None and flight is not None and not flight.waiters:
            log.warning("a call failed after its caller had gone", call=str(key), error=str(error))

    async def drain(self, seconds: float) -> None:
        """Cancel all calls and wait at most so many seconds for them to undo themselves."""
        tasks = [flight.task for flight in self._flights.values()]
        for flight in self._flights.values():
            flight.ending = True
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
