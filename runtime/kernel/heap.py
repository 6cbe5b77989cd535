"""The C library's heap (mallopt(3), malloc_trim(3)): glibc's own; another C library has no such thing, and nothing is done."""

from __future__ import annotations

from runtime.kernel.libc import function

_M_ARENA_MAX = -8


def use_one_arena() -> None:
    """Let all threads allocate from one heap: Python's threads take turns, each more heap is pages never filled."""
    _call("mallopt", "ii", _M_ARENA_MAX, 1)


def trim() -> None:
    """Give the kernel back the pages between what is allocated: imports leave half a megabyte of them in a process."""
    _call("malloc_trim", "l", 0)


def _call(name: str, signature: str, *arguments: int) -> None:
    try:
        call = function(name, signature)
    except OSError:
        return
    call(*arguments)
