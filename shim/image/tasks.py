"""Work that several callers wait for and that stops when none does any more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Sequence

T = TypeVar("T")


class Joined(Generic[T]):
    """One task a key: later callers join it, and a caller that is cancelled only leaves.

    When the last caller has left, the task is cancelled, and that caller waits until it has cleaned up: what a cancelled
    call began is gone when the call returns.
    """

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[T]] = {}
        self._waiting: dict[Hashable, int] = {}
        self._leaving: set[asyncio.Task[T]] = set()

    def running(self, key: Hashable) -> asyncio.Task[T] | None:
        """Give the task of `key`, or None."""
        return self._tasks.get(key)

    async def run(self, key: Hashable, work: Callable[[], Coroutine[object, object, T]]) -> T:
        """Give the result of work(), or of the same work already under way; raise what it raises."""
        while (task := self._tasks.get(key)) is not None and task in self._leaving:
            await asyncio.wait([task])
        if task is None:
            task = self._tasks[key] = asyncio.ensure_future(work())
            self._waiting[key] = 0
            task.add_done_callback(lambda done: self._done(key, done))
        self._waiting[key] += 1
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._tasks.get(key) is task and self._waiting[key] == 1:
                self._leaving.add(task)
                task.cancel()
                await settle(task)
            raise
        finally:
            if self._tasks.get(key) is task:
                self._waiting[key] -= 1

    async def stop(self) -> None:
        """Cancel everything and wait for it."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        for task in tasks:
            await settle(task)

    def _done(self, key: Hashable, task: asyncio.Task[T]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key], self._waiting[key]
        self._leaving.discard(task)
        if not task.cancelled():
            task.exception()  # a caller that left does not fetch it


async def complete(work: Coroutine[object, object, T]) -> T:
    """Carry `work` out whole, even when the caller is cancelled meanwhile, which is raised afterwards."""
    task = asyncio.ensure_future(work)
    await settle(task)
    return task.result()


async def all_or_none(works: Sequence[Coroutine[object, object, None]]) -> None:
    """Run all; the first failure cancels the rest and is raised when they have cleaned up."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        failed = next((task for task in tasks if task.done() and not task.cancelled() and task.exception()), None)
        for task in tasks:
            task.cancel()
        for task in tasks:
            await settle(task)
    if failed is not None:
        failed.result()


async def settle(task: asyncio.Future[Any]) -> None:
    """Wait until `task` is done, however often the waiter itself is cancelled, which is raised afterwards."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
