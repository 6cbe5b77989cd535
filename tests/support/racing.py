"""An attacker in a process of its own: it exchanges two directory entries as fast as the kernel lets it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from runtime.kernel.libc import AT_FDCWD, function

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RENAME_EXCHANGE = 2
SECONDS = 3.0
"""How long a race is run: some fifty containers, each against thousands of exchanges."""


def exchange(one: os.PathLike[str], other: os.PathLike[str]) -> None:
    """Let two names change places, atomically (renameat2(2))."""
    rename = function("renameat2", "lslsl")
    rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)


@contextlib.contextmanager
def attacker(one: Path, other: Path) -> Iterator[None]:
    """Exchange `one` and `other` without end while the block runs."""
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                exchange(one, other)
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def rounds(seconds: float = SECONDS) -> Iterator[int]:
    """Count up until the race has been run long enough."""
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        yield number
        number += 1
