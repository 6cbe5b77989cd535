"""execveat(2) and close_range(2)."""

from __future__ import annotations

import os

from runtime.kernel.libc import AT_EMPTY_PATH, _Text, system_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_CLOSE_RANGE_CLOEXEC = 0x4
_LAST = 0xFFFFFFFF

_close_range = system_call("close_range", "lll")
_execveat = system_call("execveat", "lsppl")


def close_range(first: int, last: int = _LAST) -> None:
    """Close every descriptor from `first` to `last`."""
    if first <= last:
        _close_range(first, last, 0)


def cloexec_from(first: int, last: int = _LAST) -> None:
    """Mark every descriptor from `first` on close-on-exec."""
    _close_range(first, last, _CLOSE_RANGE_CLOEXEC)


def _vector(items: Sequence[bytes]) -> Any:
    return (_Text * (len(items) + 1))(*items)


def fexecve(fd: int, argv: Sequence[str], env: Sequence[str]) -> None:
    """Execute the program `fd` refers to; returns only by raising OSError.

    `env` holds NAME=value entries.
    """
    arguments = _vector([os.fsencode(item) for item in argv])
    environment = _vector([os.fsencode(item) for item in env])
    from _ctypes import addressof

    _execveat(fd, b"", addressof(arguments), addressof(environment), AT_EMPTY_PATH)
