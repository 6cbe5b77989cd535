"""Change what /proc/self/exe leads to without an execve(2): PR_SET_MM_MAP of prctl(2), made for checkpoint and restore.

The kernel refuses as long as anything of the old file is mapped. So what the process only reads is mapped again from the image,
which has the same bytes; what it writes, or the loader has written, is copied into anonymous memory that is then moved over the
mapping: same addresses, same bytes, another origin. An interpreter counts references there with every step, so none may be
made between the copy and the move: the C library does both, in contexts that follow each other.
"""

from __future__ import annotations

import _ctypes
import os

from runtime.kernel.libc import address, buffer, function, prototype, u32, u64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_PR_SET_MM = 35
_PR_SET_MM_MAP = 14
_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS, _MAP_POPULATE = 0x2, 0x10, 0x20, 0x8000
_MREMAP_MAYMOVE_FIXED = 0x3
_LETTERS = ((b"r", _PROT_READ), (b"w", _PROT_WRITE), (b"x", _PROT_EXEC))
_PLACES = (26, 27, 45, 46, 47, 47, 28, 48, 49, 50, 51)
"""Where in /proc/self/stat (proc(5)) the addresses of struct prctl_mm_map are, in its order; but the sixth is the break."""
_BREAK = slice(5 * 8, 6 * 8)
_TRIES = 4
_CONTEXT = 1 << 13
"""Bytes for an ucontext_t (getcontext(3)): x86_64 takes one thousand, aarch64 five."""
_LINK_AND_STACK = slice(8, 40)
"""Where in it uc_link and uc_stack (its address, flags and size) are."""
_STACK = 1 << 16
"""Bytes for a context to run on, with room for a signal's frame."""

_mmap = function("mmap", "pliiil")
_mprotect = function("mprotect", "pli")
_prctl = function("prctl", "iipll")
_sbrk = function("sbrk", "l")
_getcontext = function("getcontext", "p")
_swapcontext = function("swapcontext", "pp")


def exchange(image: int) -> None:
    """Make the open, executable file `image` this process's /proc/self/exe; it must hold the bytes of the present one.

    Raises OSError when the kernel does not let: it wants CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE in the user namespace, and to
    be built with CONFIG_CHECKPOINT_RESTORE; or when the C library has no contexts. The process is whole then and may go on.
    """
    mappings = list(_mappings(os.readlink("/proc/self/exe")))
    for (start, size, protection, offset), following in zip(mappings, [*mappings[1:], None], strict=True):
        if protection & _PROT_WRITE or (following and following[2] & _PROT_WRITE):  # before data lies what the loader wrote
            _renew(start, size, protection)
        else:
            _mmap(start, size, protection, _MAP_PRIVATE | _MAP_FIXED, image, offset)
    fields = _read("/proc/self/stat").rpartition(b")")[2].split()
    addresses = u64(*(int(fields[place - 3]) for place in _PLACES))
    layout = buffer(len(addresses) + 8 + 4 + 4)
    layout.raw = addresses + u64(0) + u32(0, image)  # no auxiliary vector: it stays
    for _ in range(_TRIES):  # the break may have moved before the kernel was told where it is
        end = _sbrk(0)
        layout[_BREAK] = u64(end)
        _prctl(_PR_SET_MM, _PR_SET_MM_MAP, layout, len(layout), 0)
        if _sbrk(0) == end:
            return
    raise OSError("the break never rests")


def _renew(start: int, size: int, protection: int) -> None:
    """Put a copy in anonymous memory in the place of a mapping."""
    copy = _mmap(None, size, _PROT_READ | _PROT_WRITE, _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_POPULATE, -1, 0)
    back, second, first = buffer(_CONTEXT), buffer(_CONTEXT + _STACK), buffer(_CONTEXT + _STACK)
    _prepare(second, back, "mremap", copy, size, size, _MREMAP_MAYMOVE_FIXED, start)
    _prepare(first, second, "memcpy", copy, start, size)
    _swapcontext(back, first)
    _mprotect(start, size, protection)


def _prepare(context: Any, following: Any, name: str, *arguments: int) -> None:
    """Make a context that calls a function of the C library and goes on with another context (makecontext(3))."""
    _getcontext(context)
    context[_LINK_AND_STACK] = u64(_ctypes.addressof(following), _ctypes.addressof(context) + _CONTEXT, 0, _STACK)
    makecontext = prototype("ppi" + "p" * len(arguments))(address("makecontext"))
    makecontext(context, address(name), len(arguments), *arguments)


def _mappings(path: str) -> Iterator[tuple[int, int, int, int]]:
    """Give start, size and protection of each mapping of the file, and where in the file it begins."""
    ending = b" " + os.fsencode(path)
    for line in _read("/proc/self/maps").splitlines():
        if line.endswith(ending):
            place, letters, offset, _ = line.split(None, 3)
            start, end = (int(number, 16) for number in place.split(b"-"))
            protection = sum(bit for letter, bit in _LETTERS if letter in letters)
            yield start, end - start, protection, int(offset, 16)


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()
