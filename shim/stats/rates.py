"""Processor time a second, from the samples of earlier calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

SECOND = 1_000_000_000
SPAN = SECOND
"""Nanoseconds between samples that are kept: over less the rate would be noise, however often somebody asks."""


@dataclass(frozen=True, slots=True)
class _Sample:
    at: int
    usage: int


class Rates:
    """Remembers two samples of every cgroup, by the id of its container or pod."""

    def __init__(self) -> None:
        self._samples: dict[str, tuple[_Sample, _Sample]] = {}

    def note(self, item_id: str, at: int, usage: int, born: int) -> int | None:
        """Take a sample (nanoseconds) and give the nanoseconds of processor time a second since an earlier one.

        The first sample is compared with the time `born` at which the cgroup was made; None where no time has passed.
        """
        now = _Sample(at, usage)
        older, newer = self._samples.get(item_id) or (_Sample(born, 0), _Sample(born, 0))
        if at - newer.at >= SPAN:
            older, newer = newer, now
            self._samples[item_id] = older, newer
        passed = at - older.at
        return max(usage - older.usage, 0) * SECOND // passed if passed > 0 else None

    def keep(self, known: Container[str]) -> None:
        """Forget all but the known ids."""
        for item_id in [item_id for item_id in self._samples if item_id not in known]:
            del self._samples[item_id]
