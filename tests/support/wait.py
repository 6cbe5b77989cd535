"""Waiting for conditions: every wait has a deadline and says what it waited for."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
PATIENCE = float(os.environ.get("WHERRY_TEST_PATIENCE", "1"))
"""How much slower than usual this machine may be; an emulated one is."""
STEP = 0.01
"""Seconds between two looks at a condition that nothing announces."""


def wait_for(condition: Callable[[], T], what: str, *, seconds: float = 10.0) -> T:
    """Give the first true value of `condition`; raise TimeoutError naming `what` after `seconds`."""
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(STEP)
    return value
