"""Import this package's modules from their .pyc files with a fraction of importlib's work.

importlib looks for every kind of file a module could be; here a name has one place. Whatever is not as expected, a .pyc that
is missing, older than its source or of another kind, is left to importlib, which also writes it anew.

A command needs the same modules each time, so what it has imported is kept in one more file beside the .pyc files, its pack.
The next time they are all made from that, in the order in which they were complete, without a search. A pack counts only while
each source has the time and size it had; else the modules are imported one by one, and whoever may write there makes a new one.
"""

import marshal
import posix
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
else:
    ModuleType = type(sys)

_PACKAGE = "runtime"
_HEADER = 16
_PLAIN = MAGIC_NUMBER + b"\0\0\0\0"
"""How a .pyc begins that is checked by its source's time and size, which follow (PEP 552)."""
_PACK = MAGIC_NUMBER + b"pack"
_FEW = 4
"""Modules that a plain container may need beside a pack; with more, as after a first use that had little to do, it grows."""

Entry = tuple[str, str, int, int, bool, "CodeType"]
"""A module: its name, its source with time (nanoseconds) and size, whether it is a package, its code."""


class _Loader:
    """Executes the code that the finder has read."""

    __slots__ = ("_complete", "_entry")

    def __init__(self, entry: Entry, complete: list[Entry]) -> None:
        self._entry = entry
        self._complete = complete

    @staticmethod
    def create_module(_spec: ModuleSpec) -> None:
        """Leave the making of the module to importlib."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code in its namespace."""
        exec(self._entry[-1], module.__dict__)  # noqa: S102 - this is what importing is
        self._complete.append(self._entry)


class Finder:
    """Finds this package's modules, by name alone, below the folder `root`."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._tag = sys.implementation.cache_tag
        self._before = frozenset(sys.modules)
        self._complete: list[Entry] = []

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Give the spec of a module of this package whose .pyc is good, else None."""
        if not name.startswith(_PACKAGE):
            return None
        place = f"{self._root}/{name.replace('.', '/')}"
        folder, _, last = place.rpartition("/")
        spec = self._spec(name, f"{place}.py", f"{folder}/__pycache__/{last}.{self._tag}.pyc")
        if spec is None:
            spec = self._spec(name, f"{place}/__init__.py", f"{place}/__pycache__/__init__.{self._tag}.pyc", is_package=True)
            if spec is not None:
                spec.submodule_search_locations = [place]
        return spec

    def _spec(self, name: str, source: str, cached: str, *, is_package: bool = False) -> ModuleSpec | None:
        try:
            data, status = _read(cached), posix.stat(source)
        except OSError:
            return None
        stamp = (int(status.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + (status.st_size & 0xFFFFFFFF).to_bytes(4, "little")
        if data[:_HEADER] != _PLAIN + stamp:
            return None
        code: CodeType = marshal.loads(memoryview(data)[_HEADER:])  # noqa: S302 - our own file, as every import reads it
        entry = (name, source, status.st_mtime_ns, status.st_size, is_package, code)
        spec = ModuleSpec(name, _Loader(entry, self._complete), origin=source)  # type: ignore[arg-type]  # what importlib calls is there
        spec.cached = cached
        spec.has_location = True
        return spec

    def unpack(self, command: str) -> None:
        """Make the modules of a command from its pack, if there is one and it is good."""
        entries = [entry for entry in self._packed(command) if entry[0] not in sys.modules]
        sys.modules.update((entry[0], _blank(entry)) for entry in entries)  # a package is complete after what it imports
        for index, (name, *_, code) in enumerate(entries):
            parent, _, last = name.rpartition(".")
            try:
                exec(code, sys.modules[name].__dict__)  # noqa: S102 - as above
            except Exception:  # noqa: BLE001 - whatever it is, who needs the module imports it and has it told
                for entry in entries[index:]:
                    del sys.modules[entry[0]]
                return
            setattr(sys.modules[parent], last, sys.modules[name])

    def _packed(self, command: str) -> list[Entry]:
        try:
            data = _read(self._place(command))
            if data[: len(_PACK)] != _PACK:
                return []
            entries: list[Entry] = marshal.loads(memoryview(data)[len(_PACK) :])  # noqa: S302 - as above
            for _, source, time, size, _, _ in entries:
                status = posix.stat(source)
                if (status.st_mtime_ns, status.st_size) != (time, size):
                    return []
        except (OSError, EOFError, TypeError, ValueError):
            return []
        return entries

    def _place(self, command: str) -> str:
        return f"{self._root}/{_PACKAGE}/__pycache__/{command}.{self._tag}.pack"

    def pack(self, command: str) -> None:
        """Add what had to be found for a plain container to a command's pack, if it was much and this user may write there."""
        if len(self._complete) <= _FEW:
            return
        from runtime.plain import MODULES

        found = [entry for entry in self._complete if entry[0] in MODULES]
        if len(found) <= _FEW:
            return
        entries = self._packed(command) + found
        if MODULES.intersection(sys.modules) - self._before - {entry[0] for entry in entries}:
            return  # importlib has made its .pyc only now
        path = self._place(command)
        scratch = f"{path}.{posix.getpid()}"
        try:
            fd = posix.open(scratch, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o644)
            try:
                posix.writev(fd, [_PACK, marshal.dumps(entries)])
            finally:
                posix.close(fd)
            posix.rename(scratch, path)
        except OSError:
            return  # without it is only slower


def _blank(entry: Entry) -> ModuleType:
    name, source, _, _, is_package, _ = entry
    module = ModuleType(name)
    module.__file__ = source
    module.__package__ = name if is_package else name.rpartition(".")[0]
    if is_package:
        module.__path__ = [source.rpartition("/")[0]]
    return module


def _read(path: str) -> bytes:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(fd, posix.fstat(fd).st_size)
    finally:
        posix.close(fd)


def install() -> Finder:
    """Put a finder first, for the modules of this package from where it was imported itself."""
    finder = Finder(__file__.rpartition("/")[0].rpartition("/")[0])
    sys.meta_path.insert(0, finder)
    return finder
