"""The event loop of the spawner and of the monitors: epoll, timers, child processes, and `async def` on top.

Why not asyncio: a monitor stands beside every pod for the pod's whole life, and importing asyncio costs more private memory
than everything else a monitor holds. Here one thread waits for descriptors, deadlines and SIGCHLD; a coroutine may await a
`Future`, nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Collection, Coroutine, Generator, Iterator
    from typing import Any, Generic, TypeVar

    T = TypeVar("T")
else:
    import _signal as signal  # without the enumerations of the signal module, whose pages every monitor would copy

    T = None

    class Generic:
        """Stand for typing's, whose import is half a megabyte in every process that forks from one with it."""

        __slots__ = ()

        def __class_getitem__(cls, _argument: object) -> type:
            return cls


READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLHUP | select.EPOLLERR

_LONGEST_WAIT = 86_400.0
"""Seconds: epoll_wait(2) counts milliseconds in an int, and a caller's deadline may be centuries away."""


class Cancelled(BaseException):
    """The task was cancelled: thrown into its coroutine to end it, so `except Exception` must not catch it."""


class Expired(Exception):  # noqa: N818 - an event as much as an error
    """A wait passed its deadline."""


class Future(Generic[T]):
    """A value that will be there later; awaitable by any number of tasks."""

    __slots__ = ("_callbacks", "_done", "_error", "_value")

    def __init__(self) -> None:
        self._done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def done(self) -> bool:
        """Whether a value or an error is there."""
        return self._done

    def set(self, value: T) -> None:
        """Resolve with `value`; a second resolution is ignored, because a timeout may race with the result."""
        if not self._done:
            self._value = value
            self._finish()

    def fail(self, error: BaseException) -> None:
        """Resolve with `error`, which is raised where the future is awaited."""
        if not self._done:
            self._error = error
            self._finish()

    def _finish(self) -> None:
        self._done = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` when resolved, at once when it is already."""
        if self._done:
            callback()
        else:
            self._callbacks.append(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Undo `on_done`."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def result(self) -> T:
        """Give the value or raise the error; only once done."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # None only when T allows it

    def __await__(self) -> Generator[Future[Any], None, T]:
        if not self._done:
            yield self
        return self.result()


class Task(Future[T]):
    """A running coroutine; itself the future of its result."""

    __slots__ = ("_coroutine", "_waiting")

    def __init__(self, coroutine: Coroutine[Future[Any], None, T]) -> None:
        super().__init__()
        self._coroutine = coroutine
        self._waiting: Future[Any] | None = None
        self._step()

    def _step(self) -> None:
        self._advance(None)

    def _advance(self, error: BaseException | None) -> None:
        self._waiting = None
        try:
            waiting = self._coroutine.throw(error) if error is not None else self._coroutine.send(None)
        except StopIteration as stop:
            self.set(stop.value)
        except (Exception, Cancelled) as failure:  # noqa: BLE001 - it is handed to whoever awaits the task
            self.fail(failure)
        else:
            self._waiting = waiting
            waiting.on_done(self._step)

    def cancel(self) -> None:
        """Throw `Cancelled` into the coroutine where it waits."""
        if self._waiting is not None:
            self._waiting.forget(self._step)
            self._advance(Cancelled())


class Timer:
    """A callback at a point of the monotonic clock."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Make it never fire."""
        self.callback = None


class Reactor:
    """Descriptors, timers and children of one single-threaded process."""

    def __init__(self, *, on_error: Callable[[str], None] | None = None) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self._running = True
        self._on_error = on_error or _to_stderr
        self.children = Children()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.watch(self._wake_read, READ, self._woken)
        # A handler, not SIG_IGN: an ignored signal would stay ignored in every container through execve(2).
        # SIGPIPE is among them because clients of attach go away while something is written to them.
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
            signal.signal(number, _no_action)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self.on_signal: Callable[[int], None] = lambda _number: None

    def _woken(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in set(os.read(self._wake_read, 4096)):
                if number != signal.SIGCHLD:
                    self.on_signal(number)
        self.children.reap()

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call `handler(events)` whenever `fd` is ready; replaces an earlier handler of `fd`. OSError for a regular file."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        """Stop watching; an fd that is not watched is no error, so that cleanups may run twice."""
        if self._handlers.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def at(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` after `delay` seconds."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._count), timer))
        return timer

    def spawn(self, coroutine: Coroutine[Future[Any], None, T]) -> Task[T]:
        """Run a coroutine until its first wait and then whenever what it waits for is there."""
        return Task(coroutine)

    def readable(self, fd: int) -> Future[int]:
        """Give a future that resolves when `fd` can be read; the watch ends with it."""
        future: Future[int] = Future()

        def ready(events: int) -> None:
            self.unwatch(fd)
            future.set(events)

        self.watch(fd, READ, ready)
        return future

    async def within(self, seconds: float | None, future: Future[T]) -> T:
        """Await `future` at most so many seconds (None: for ever); raise Expired. The future itself is not cancelled."""
        if seconds is None or future.done:
            return await future
        either: Future[bool] = Future()
        timer = self.at(seconds, lambda: either.set(False))

        def arrived() -> None:
            either.set(True)

        future.on_done(arrived)
        try:
            if not await either:
                raise Expired
            return future.result()
        finally:
            timer.cancel()
            future.forget(arrived)

    def run(self) -> None:
        """Dispatch until `stop`; a handler's exception is reported and never ends the loop."""
        while self._running:
            self.turn(None)

    def turn(self, limit: float | None) -> None:
        """Wait once (at most `limit` seconds), then dispatch what is ready and what is due."""
        try:
            ready = self._epoll.poll(self._timeout(limit))
        except InterruptedError:
            ready = []
        for fd, events, handler in [(fd, events, self._handlers.get(fd)) for fd, events in ready]:
            # an earlier handler of this turn may have closed it, and watch another file by the same number
            if handler is not None and self._handlers.get(fd) is handler:
                self._guard(handler, events)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.callback is not None:
                self._guard(timer.callback)

    def _timeout(self, limit: float | None) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return limit
        due = min(max(0.0, self._timers[0][0] - time.monotonic()), _LONGEST_WAIT)
        return due if limit is None else min(limit, due)

    def _guard(self, handler: Callable[..., None], *args: Any) -> None:
        try:
            handler(*args)
        except Exception:  # noqa: BLE001 - one bad descriptor must not end a process that others rely on
            import traceback  # noqa: PLC0415 - monitors, of which there are many, should never need it

            self._on_error(traceback.format_exc())

    def awaits_only(self, fds: Collection[int], children: Collection[int]) -> bool:
        """Tell whether nothing is awaited but these descriptors and children, and no timer runs."""
        timers = any(timer.callback is not None for _due, _number, timer in self._timers)
        watched = self._handlers.keys() - {self._wake_read}
        return not timers and watched <= set(fds) and self.children.awaits_only(children)

    def stop(self) -> None:
        """End `run` after the current turn."""
        self._running = False

    def close(self) -> None:
        """Release what the loop holds, in a child that goes on without it."""
        signal.set_wakeup_fd(-1)
        self._handlers.clear()
        self._epoll.close()
        for fd in (self._wake_read, self._wake_write):
            with contextlib.suppress(OSError):
                os.close(fd)


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)


def _no_action(_number: int, _frame: object) -> None:
    """Exist, so that the signal interrupts the wait and writes to the wakeup descriptor."""


class Children:
    """Every child and adopted orphan of this process, reaped as they end.

    Statuses are exit codes as a shell gives them: 0 to 255, or 128 + n for signal n.
    """

    __slots__ = ("_collecting", "_expected", "_unclaimed", "on_reap")

    def __init__(self) -> None:
        self._expected: dict[int, Future[int]] = {}
        self._unclaimed: dict[int, int] = {}
        self._collecting = 0
        self.on_reap: Callable[[int, int], None] = lambda _pid, _status: None

    def expect(self, pid: int) -> Future[int]:
        """Give the future of the exit status of `pid`; within `collecting()` also when it ended before this call."""
        future = self._expected.get(pid)
        if future is None:
            future = Future()
            if pid in self._unclaimed:
                future.set(self._unclaimed.pop(pid))
            else:
                self._expected[pid] = future
        return future

    def awaits_only(self, pids: Collection[int]) -> bool:
        """Tell whether nothing but the ends of these children is awaited."""
        return not self._collecting and self._expected.keys() <= set(pids)

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep the statuses of unknown children: one may be an adopted process whose pid is only about to be told."""
        self._collecting += 1
        try:
            yield
        finally:
            self._collecting -= 1
            if not self._collecting:
                self._unclaimed.clear()

    def reap(self) -> None:
        """Wait, without blocking, for all that have ended (waitid(2))."""
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                return
            except OSError as error:
                if error.errno == errno.EINTR:
                    continue
                raise
            if info is None:
                return
            status = info.si_status if info.si_code == os.CLD_EXITED else 128 + info.si_status
            self.tell(info.si_pid, status)

    def tell(self, pid: int, status: int) -> None:
        """Resolve what waits for the end of `pid`; also for a child that somebody else waits for in our place."""
        future = self._expected.pop(pid, None)
        if future is not None:
            future.set(status)
        elif self._collecting:
            self._unclaimed[pid] = status
        self.on_reap(pid, status)
