"""What a process that has started gives back: its heap's empty pages, and the code that only its start has run.

The calls of the heap (mallopt(3), malloc_trim(3)) are glibc's own; another C library has no such thing, and nothing is done.
"""

from __future__ import annotations

from runtime.kernel.libc import function

_M_ARENA_MAX = -8
_MADV_DONTNEED = 4


def use_one_arena() -> None:
    """Let all threads allocate from one heap: Python's threads take turns, each more heap is pages never filled."""
    _call("mallopt", "ii", _M_ARENA_MAX, 1)


def trim() -> None:
    """Give the kernel back the pages between what is allocated: imports leave half a megabyte of them in a process."""
    _call("malloc_trim", "l", 0)


def unmap_code() -> None:
    """Take the pages of programs and libraries out of this process (madvise(2), MADV_DONTNEED); those that run on come back.

    Their contents stay in the page cache, from where a fault maps sixteen pages at once. Only what may not be written to is
    asked for: a page that relocation has changed would come back unchanged. Measured: a third of the code that wherryd has
    mapped when it serves (16 MB), and more than half of the spawner's (7), is not mapped again by pods that come and go.
    """
    madvise = function("madvise", "lli")
    for first, end in _code():
        try:  # noqa: SIM105 - contextlib costs an import
            madvise(first, end - first, _MADV_DONTNEED)
        except OSError:
            pass  # locked pages stay


def _code() -> list[tuple[int, int]]:
    """Give the address ranges of executable files' code (proc(5), /proc/pid/maps)."""
    found = []
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            fields = line.split(None, 5)
            if fields[1] == "r-xp" and len(fields) == 6 and fields[5].startswith("/"):
                first, _, end = fields[0].partition("-")
                found.append((int(first, 16), int(end, 16)))
    return found


def _call(name: str, signature: str, *arguments: int) -> None:
    try:
        call = function(name, signature)
    except OSError:
        return
    call(*arguments)
