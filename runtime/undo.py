"""Take back what a failed operation did: a stack of described steps, all of which run, last first."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Undo:
    """Steps to take back. `commit` forgets them; `run` takes every one even when an earlier one fails."""

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], object]]] = []

    def push(self, what: str, step: Callable[[], object]) -> None:
        """Remember how to take `what` back."""
        self._steps.append((what, step))

    def commit(self) -> None:
        """Keep everything."""
        self._steps.clear()

    def run(self) -> list[str]:
        """Take everything back and give what could not be, one line each."""
        left = []
        while self._steps:
            what, step = self._steps.pop()
            try:
                step()
            except Exception as error:  # noqa: BLE001 - the other steps must run; what failed is told
                left.append(f"{what}: {error}")
        return left


class Descriptors:
    """Descriptors one operation opened, closed together however it ends."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: list[int] = []

    def keep(self, fd: int) -> int:
        """Own `fd` (-1 is none) and give it back."""
        if fd >= 0:
            self._open.append(fd)
        return fd

    def all(self) -> tuple[int, ...]:
        """Give every descriptor owned."""
        return tuple(self._open)

    def close(self) -> None:
        """Close every one."""
        for fd in self._open:
            os.close(fd)
        self._open.clear()
