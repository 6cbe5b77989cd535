"""A level of SELinux for each pod: two categories that no other pod on this node has (mcs, selinux(8))."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from shim.errors import ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

CATEGORIES = 1024
"""As many as the policies of distributions have: c0 to c1023, half a million pairs."""
_TRIES = 10_000


def new_level(taken: Collection[str], choose: Callable[[int], int] = secrets.randbelow) -> str:
    """Give a level such as s0:c12,c345 that is not in `taken`, by chance: which pod has which is nobody's to foresee.

    Raises ResourceExhausted when none is found; `choose` gives a number from 0 below its argument.
    """
    for _ in range(_TRIES):
        first, second = sorted((choose(CATEGORIES), choose(CATEGORIES)))
        level = f"s0:c{first},c{second}"
        if first != second and level not in taken:
            return level
    raise ResourceExhausted(f"no free pair of SELinux categories was found among those of {len(taken)} pods; remove some")
