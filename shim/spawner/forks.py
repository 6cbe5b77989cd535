"""Keep what other modules want done after every fork away from the forks of monitors.

`threading`, `random` and `logging` register functions that repair their state in a child (os.register_at_fork). In a process
without threads nothing needs repair, but those functions write to a hundred pages, which every monitor would then hold for
itself. Jobs, which may use any of these modules, run them; monitors do not.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_deferred: list[Callable[[], object]] = []


def defer() -> None:
    """From now on keep functions for a child aside. Call before the modules above are imported; never undone."""

    def register(*, after_in_child: Callable[[], object] | None = None, **_others: Any) -> None:
        if after_in_child is not None:
            _deferred.append(after_in_child)

    os.register_at_fork = register


def run_deferred() -> None:
    """Do in a child what was kept aside."""
    for function in _deferred:
        function()
