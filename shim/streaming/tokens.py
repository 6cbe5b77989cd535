"""Tokens: what stands for a validated request between the RPC that made it and the HTTP request that redeems it, once."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from shim.errors import ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

CAPACITY = 1000
"""Tokens that may wait to be redeemed."""
_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry(Generic[T]):
    value: T
    expires: float


class Tokens(Generic[T]):
    """Values by unguessable, single-use tokens that expire after `lifetime` seconds."""

    def __init__(self, lifetime: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lifetime = lifetime
        self._clock = clock
        self._entries: dict[str, _Entry[T]] = {}

    def __len__(self) -> int:
        self._expire()
        return len(self._entries)

    def issue(self, value: T) -> str:
        """Give a new token (URL-safe) for `value`; raise ResourceExhausted when too many wait."""
        self._expire()
        if len(self._entries) >= CAPACITY:
            raise ResourceExhausted(f"{CAPACITY} streaming requests wait for their clients; try again later")
        token = secrets.token_urlsafe(_BYTES)
        self._entries[token] = _Entry(value=value, expires=self._clock() + self._lifetime)
        return token

    def redeem(self, token: str) -> T | None:
        """Give the value and forget it; None for a token that is unknown, used or expired."""
        entry = self._entries.pop(token, None)
        return entry.value if entry is not None and entry.expires > self._clock() else None

    def _expire(self) -> None:
        now = self._clock()
        while self._entries:  # they are in the order of their expiry
            token = next(iter(self._entries))
            if self._entries[token].expires > now:
                return
            del self._entries[token]
