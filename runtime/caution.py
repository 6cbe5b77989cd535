"""What is worth telling the caller though nothing failed: the command line listens, otherwise nobody hears it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_listeners: list[Callable[[str], None]] = []


def listen(listener: Callable[[str], None]) -> None:
    """Let `listener` have every caution of this process from now on, and nobody else."""
    _listeners[:] = [listener]


def caution(message: str) -> None:
    """Tell the listener, if there is one."""
    for listener in _listeners:
        listener(message)
