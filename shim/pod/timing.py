"""Where the time of a call goes, for the debug log."""

from __future__ import annotations

import time
from typing import Any

import structlog

log = structlog.get_logger()


class Timing:
    """Marks of one call; milliseconds since the mark before."""

    __slots__ = ("_last", "_marks", "_start", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._start = self._last = time.perf_counter()
        self._marks: dict[str, float] = {}

    def mark(self, step: str) -> None:
        """Note that `step` has just been done."""
        now = time.perf_counter()
        self._marks[step] = round((now - self._last) * 1000, 2)
        self._last = now

    def log(self, **what: Any) -> None:
        """Write all marks as one debug event."""
        total = round((time.perf_counter() - self._start) * 1000, 2)
        log.debug(self._what, ms=total, steps=self._marks, **what)
