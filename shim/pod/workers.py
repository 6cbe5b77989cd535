"""Threads for blocking work beside the event loop: a call that hangs is left behind, nobody waits for it.

The executors of the standard library join their threads when the interpreter ends, and a hung one is a slot less for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from shim.errors import DeadlineExceeded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

THREADS = 8
"""Calls carried out at once."""
MOST_LOST = 32
"""Hung calls from which new ones are refused: each holds a thread."""


class _Order:
    __slots__ = ("begun", "done", "ended", "left", "loop", "work")

    def __init__(self, work: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.loop = loop
        self.done: asyncio.Future[Any] = loop.create_future()
        self.begun = self.ended = False
        self.left = False  # the caller does not wait any more


class Workers:
    """A few daemon threads, started when they are needed; belongs to the event loop's thread."""

    def __init__(self, threads: int = THREADS) -> None:
        self._wanted = threads
        self._running = 0
        self._busy = 0
        self._lost = 0
        self._lock = threading.Lock()
        self._queue: SimpleQueue[_Order | None] = SimpleQueue()

    async def run(self, work: Callable[[], T], seconds: float, what: str) -> T:
        """Give work(); `what` names it in errors.

        Raises DeadlineExceeded after `seconds`, what `work` raises, Unavailable when too many earlier calls hang. Work that
        has begun goes on when the caller is cancelled or gives up: it must do no more than look.
        """
        if self._lost >= MOST_LOST:
            raise Unavailable(f"{what}: {self._lost} earlier looks at the file systems still hang; see what does not answer")
        order = _Order(work, asyncio.get_running_loop())
        self._add_thread()
        self._queue.put(order)
        try:
            done, _ = await asyncio.wait([order.done], timeout=seconds)
        except asyncio.CancelledError:
            self._leave(order)
            raise
        if not done:
            self._leave(order)
            raise DeadlineExceeded(f"{what} took longer than {seconds:g} s: a file system may not be answering")
        return order.done.result()  # type: ignore[no-any-return]  # a T, by what made it

    def close(self) -> None:
        """Let idle threads end; hung ones end with the process."""
        for _ in range(self._running):
            self._queue.put(None)

    def _add_thread(self) -> None:
        with self._lock:
            if self._running >= self._wanted or self._running > self._busy:
                return
            self._running += 1
        threading.Thread(target=self._serve, name="wherry-file", daemon=True).start()

    def _leave(self, order: _Order) -> None:
        """Do not count on the thread of a call that is not waited for any more; it retires when the call ends."""
        with self._lock:
            order.left = True
            if not order.begun or order.ended:
                return
            self._lost += 1
            self._running -= 1
            self._busy -= 1
        if not self._queue.empty():
            self._add_thread()

    def _serve(self) -> None:
        while (order := self._queue.get()) is not None:
            with self._lock:
                if order.left:
                    continue
                order.begun = True
                self._busy += 1
            value, error = None, None
            try:
                value = order.work()
            except BaseException as caught:  # noqa: BLE001 - it is raised where the call was made
                error = caught
            with self._lock:
                order.ended = True
                if order.left:
                    self._lost -= 1
                    return
                self._busy -= 1
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                order.loop.call_soon_threadsafe(_settle, order.done, value, error)


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
