"""What a process does once, so that its forks find everything imported and write to few of the pages they share with it."""

from __future__ import annotations

import gc
import importlib
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

POOL_BYTES = 16 * 1024
"""What pymalloc hands out blocks of one size from (Objects/obmalloc.c); a few bytes of it are its head."""
_HEAD_BYTES = 48
LARGEST_BLOCK = 512
"""Bytes of the largest block pymalloc hands out; sizes are multiples of 16."""
_BATCH = 64
"""Blocks in a row that nobody takes for a coincidence."""
_MOST = 50_000
"""Blocks of a size after which we give up: some other allocator may be in use."""
_BYTES_OVERHEAD = sys.getsizeof(b"")

_fillings: list[list[object]] = []


def import_packages(packages: Iterable[str], cold: tuple[str, ...]) -> None:
    """Import all modules of some packages but those whose names begin with one of `cold`; say which cannot be imported."""
    for package in packages:
        for folder in importlib.import_module(package).__path__:
            for name in modules_below(folder, package):
                if not name.startswith(cold):
                    _import(name)


def modules_below(folder: str, package: str) -> Iterator[str]:
    """Give the names of the modules below a package's folder, a package before what is in it; pkgutil does that in 90 kB."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name, _, suffix = entry.name.partition(".")
        if suffix == "py" and name != "__init__":
            yield f"{package}.{name}"
        elif not suffix and os.path.exists(f"{entry.path}/__init__.py"):
            yield f"{package}.{name}"
            yield from modules_below(entry.path, f"{package}.{name}")


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError as error:
        sys.stderr.write(f"wherry-spawner: {name} is not warm: {error}\n")


def fill_holes() -> None:
    """Use up the free blocks between what has been allocated, for good, so that forks allocate side by side in fresh pages.

    Imports leave holes of every size all over the heap, and an allocator fills holes first: each object a fork makes would
    then lie in another page that it shares with its parent, and copy it. Measured: 160 pages less in every monitor.
    """
    gc.collect()  # also empties the interpreter's own lists of free objects
    _fillings.extend(_fill(size) for size in range(16, LARGEST_BLOCK + 1, 16))


def _fill(size: int) -> list[object]:
    """Allocate blocks of a size until they come in a row, which means from a pool that was empty; give all before those.

    Blocks are made in batches, at most half a pool each, and looked at afterwards: the numbers with which one looks take
    blocks themselves, as does what a loop needs, so that the first few of a batch may lie in holes that came up meanwhile.
    """
    make = _maker(size)
    batch = min((POOL_BYTES - _HEAD_BYTES) // size // 2, _BATCH)
    made: list[object] = []
    while len(made) < _MOST:
        blocks: list[object] = [None] * batch
        for at in range(batch):
            blocks[at] = make()
        last = blocks[batch // 4 :]
        if id(last[-1]) - id(last[0]) == size * (len(last) - 1):
            break
        made += blocks
    return made


def _maker(size: int) -> Callable[[], object]:
    if size == 16:
        return object
    if size < _BYTES_OVERHEAD:
        return lambda: float(size)
    return lambda: bytes(size - _BYTES_OVERHEAD)
