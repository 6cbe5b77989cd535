"""Undo, in reverse order, what a failed call has made; every step runs even when an earlier one fails."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

T = TypeVar("T")

STEP_TIMEOUT = 90.0
"""Seconds one step may take before the next is tried."""

log = structlog.get_logger()


class Rollback(AsyncExitStack):
    """An exit stack whose steps have names and cannot hide the error that caused them.

    Leave the block without `pop_all()` and everything is undone.
    """

    def undo(self, what: str, step: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Remember that `what` was (or is about to be) made and that step(*args) removes it."""
        self.push_async_callback(_run, what, step, args)


async def _run(what: str, step: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
    try:
        async with asyncio.timeout(STEP_TIMEOUT):
            await step(*args)
    except Exception as error:  # noqa: BLE001 - the remaining steps must run, and the first error is the one to report
        log.error("undo failed", step=what, error=f"{type(error).__name__}: {error}")  # noqa: TRY400 - one line, no traceback


async def beside(work: Coroutine[Any, Any, T], meanwhile: Callable[[], object]) -> T:
    """Give the outcome of `work`, and call `meanwhile`, which is quick, once it has begun; when that fails, cancel `work`."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.sleep(0)
        meanwhile()
    except BaseException:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # taken note of; the first failure is what the caller learns
        raise
    return await task


async def settled(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end even when cancelled meanwhile: what undoes it must not run beside it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # taken note of; the cancellation is what the caller learns
        raise
