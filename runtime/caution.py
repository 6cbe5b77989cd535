"""What is worth telling the caller though nothing failed: the command line listens, otherwise nobody hears it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_listeners: list[Callable[[str], None]] = []
_followers: list[Callable[[str], None]] = []


def listen(listener: Callable[[str], None], follower: Callable[[str], None] | None = None) -> None:
    """Let `listener` have every caution of this process from now on, `follower` every step, and nobody else."""
    _listeners[:] = [listener]
    _followers[:] = [follower] if follower is not None else []


def caution(message: str) -> None:
    """Tell the listener, if there is one."""
    for listener in _listeners:
        listener(message)


def followed() -> bool:
    """Tell whether anybody follows the steps, where it costs something to describe one."""
    return bool(_followers)


def step(message: str) -> None:
    """Tell the follower, if there is one, which step is done. The words are runc's where tools look for them in its log."""
    for follower in _followers:
        follower(message)
