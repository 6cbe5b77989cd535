"""Import this package's modules from their .pyc files with a fraction of importlib's work.

importlib looks for every kind of file a module could be; here a name has one place. Whatever is not as expected, a .pyc that
is missing, older than its source or of another kind, is left to importlib, which also writes it anew.
"""

from __future__ import annotations

import marshal
import posix
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType

_PACKAGE = "runtime"
_HEADER = 16
_PLAIN = MAGIC_NUMBER + b"\0\0\0\0"
"""How a .pyc begins that is checked by its source's time and size, which follow (PEP 552)."""
_MOST = 1 << 16
"""Bytes to read at once; a bigger buffer would be memory mapped and unmapped for each module."""


class _Loader:
    """Executes the code that the finder has read."""

    __slots__ = ("_code",)

    def __init__(self, code: CodeType) -> None:
        self._code = code

    @staticmethod
    def create_module(_spec: ModuleSpec) -> None:
        """Leave the making of the module to importlib."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code in its namespace."""
        exec(self._code, module.__dict__)  # noqa: S102 - this is what importing is


class _Finder:
    """Finds this package's modules, by name alone."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._suffix = f".{sys.implementation.cache_tag}.pyc"

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Give the spec of a module of this package whose .pyc is good, else None."""
        if not name.startswith(_PACKAGE):
            return None
        place = f"{self._root}/{name.replace('.', '/')}"
        folder, _, last = place.rpartition("/")
        spec = self._spec(name, f"{place}.py", f"{folder}/__pycache__/{last}{self._suffix}")
        if spec is None:
            spec = self._spec(name, f"{place}/__init__.py", f"{place}/__pycache__/__init__{self._suffix}")
            if spec is not None:
                spec.submodule_search_locations = [place]
        return spec

    @staticmethod
    def _spec(name: str, source: str, cached: str) -> ModuleSpec | None:
        code = _read(source, cached)
        if code is None:
            return None
        spec = ModuleSpec(name, _Loader(code), origin=source)  # type: ignore[arg-type]  # what importlib calls of a loader is there
        spec.cached = cached
        spec.has_location = True
        return spec


def _read(source: str, cached: str) -> CodeType | None:
    try:
        fd = posix.open(cached, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = posix.read(fd, _MOST)
        while len(data) % _MOST == 0 and (more := posix.read(fd, _MOST)):
            data += more
        status = posix.stat(source)
    except OSError:
        return None
    finally:
        posix.close(fd)
    stamp = (int(status.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + (status.st_size & 0xFFFFFFFF).to_bytes(4, "little")
    if data[:_HEADER] != _PLAIN + stamp:
        return None
    code: CodeType = marshal.loads(memoryview(data)[_HEADER:])  # noqa: S302 - our own file, as every import reads it
    return code


def install() -> None:
    """Put the finder first, for the modules of this package from where it was imported itself."""
    sys.meta_path.insert(0, _Finder(__file__.rpartition("/")[0].rpartition("/")[0]))
