"""Change what /proc/self/exe leads to without an execve(2): PR_SET_MM_MAP of prctl(2), made for checkpoint and restore.

The kernel refuses as long as anything of the old file is mapped. So each of its mappings is copied into anonymous memory that
is then moved over it: same addresses, same bytes, another origin. That is safe for an executable that is but a frame around a
shared library, because nothing writes to its few pages between the copy and the move.
"""

from __future__ import annotations

import os

from runtime.kernel.libc import buffer, function, u32, u64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PR_SET_MM = 35
_PR_SET_MM_MAP = 14
_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_MAP_PRIVATE_ANONYMOUS = 0x22
_MREMAP_MAYMOVE_FIXED = 0x3
_LETTERS = ((b"r", _PROT_READ), (b"w", _PROT_WRITE), (b"x", _PROT_EXEC))
_PLACES = (26, 27, 45, 46, 47, 47, 28, 48, 49, 50, 51)
"""Where in /proc/self/stat (proc(5)) the addresses of struct prctl_mm_map are, in its order; but the sixth is the break."""
_BREAK = slice(5 * 8, 6 * 8)
_TRIES = 4

_mmap = function("mmap", "pliiil")
_mprotect = function("mprotect", "pli")
_mremap = function("mremap", "pllip")
_memcpy = function("memcpy", "ppl")
_prctl = function("prctl", "iipll")
_sbrk = function("sbrk", "l")


def exchange(image: int) -> None:
    """Make the open, executable file `image` this process's /proc/self/exe.

    Raises OSError when the kernel does not let: it wants CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE in the user namespace, and to
    be built with CONFIG_CHECKPOINT_RESTORE. The process is whole then and may go on.
    """
    for start, size, protection in _mappings(os.readlink("/proc/self/exe")):
        copy = _mmap(None, size, _PROT_READ | _PROT_WRITE, _MAP_PRIVATE_ANONYMOUS, -1, 0)
        _memcpy(copy, start, size)
        _mprotect(copy, size, protection)
        _mremap(copy, size, size, _MREMAP_MAYMOVE_FIXED, start)
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


def _mappings(path: str) -> Iterator[tuple[int, int, int]]:
    """Give start, size and protection of each mapping of the file."""
    ending = b" " + os.fsencode(path)
    for line in _read("/proc/self/maps").splitlines():
        if line.endswith(ending):
            place, letters, _ = line.split(None, 2)
            start, _, end = place.partition(b"-")
            yield int(start, 16), int(end, 16) - int(start, 16), sum(bit for letter, bit in _LETTERS if letter in letters)


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()
