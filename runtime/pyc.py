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
_READ = posix.O_RDONLY | posix.O_CLOEXEC
_PACK = MAGIC_NUMBER + b"pack"
"""How a pack begins. The modules' code follows, then the index, a list of `Stamp`, and its length in `_LENGTH` bytes."""
_LENGTH = 4
_FEW = 4
"""Modules that a plain container may need beside a pack; with more, as after a first use that had little to do, it grows."""

Entry = tuple[str, str, int, int, bool, "CodeType"]
"""A module: its name, its source with time (nanoseconds) and size, whether it is a package, its code."""
Stamp = tuple[str, str, int, int, bool, int]
"""The same of a module in a pack: the last is the length of its code."""


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
        try:
            fd = posix.open(self._place(command), _READ)
        except OSError:
            return
        try:
            self._make(fd, _index(fd))
        finally:
            posix.close(fd)

    @staticmethod
    def _make(fd: int, index: list[Stamp]) -> None:
        posix.lseek(fd, len(_PACK), 0)
        blank = {stamp[0]: _blank(stamp) for stamp in index if stamp[0] not in sys.modules}
        sys.modules.update(blank)  # all at once, because a package is complete after what it imports
        for name, *_, length in index:
            data = posix.read(fd, length)
            module = blank.get(name)
            if module is None:
                continue
            try:
                exec(marshal.loads(data), module.__dict__)  # noqa: S102, S302 - as above
            except Exception:  # noqa: BLE001 - whatever it is, who needs the module imports it and has it told
                for left in blank:
                    del sys.modules[left]
                return
            parent, _, last = name.rpartition(".")
            setattr(sys.modules[parent], last, blank.pop(name))

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
        path = self._place(command)
        index, codes = _content(path)
        if MODULES.intersection(sys.modules) - self._before - {part[0] for part in (*index, *found)}:
            return  # importlib has made its .pyc only now
        scratch = f"{path}.{posix.getpid()}"
        try:
            fd = posix.open(scratch, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o644)
            try:
                posix.writev(fd, [_PACK, codes])
                for *stamp, code in found:  # one by one: a command's peak of memory is not to be its first use's
                    index.append((*stamp, posix.write(fd, marshal.dumps(code))))  # type: ignore[arg-type]  # of the same shape
                end = marshal.dumps(index)
                posix.writev(fd, [end, len(end).to_bytes(_LENGTH, "little")])
            finally:
                posix.close(fd)
            posix.rename(scratch, path)
        except OSError:
            return  # without it is only slower


def _index(fd: int) -> list[Stamp]:
    """Give what is in an open pack; nothing when it is damaged or made from other sources."""
    try:
        size = posix.fstat(fd).st_size
        length = int.from_bytes(posix.pread(fd, _LENGTH, size - _LENGTH), "little")
        end = size - _LENGTH - length
        if end < len(_PACK) or posix.pread(fd, len(_PACK), 0) != _PACK:
            return []
        index: list[Stamp] = marshal.loads(posix.pread(fd, length, end))  # noqa: S302 - as above
        for _, source, time, source_size, _, _ in index:
            status = posix.stat(source)
            if (status.st_mtime_ns, status.st_size) != (time, source_size):
                return []
    except (OSError, EOFError, TypeError, ValueError):
        return []
    return index if len(_PACK) + sum(stamp[-1] for stamp in index) == end else []


def _content(path: str) -> tuple[list[Stamp], bytes]:
    """Give the index of a good pack and all its code, of any other nothing."""
    try:
        fd = posix.open(path, _READ)
    except OSError:
        return [], b""
    try:
        index = _index(fd)
        return index, posix.pread(fd, sum(stamp[-1] for stamp in index), len(_PACK))
    finally:
        posix.close(fd)


def _blank(stamp: Stamp) -> ModuleType:
    name, source, _, _, is_package, _ = stamp
    module = ModuleType(name)
    module.__file__ = source
    module.__package__ = name if is_package else name.rpartition(".")[0]
    if is_package:
        module.__path__ = [source.rpartition("/")[0]]
    return module


def _read(path: str) -> bytes:
    fd = posix.open(path, _READ)
    try:
        return posix.read(fd, posix.fstat(fd).st_size)
    finally:
        posix.close(fd)


def install() -> Finder:
    """Put a finder first, for the modules of this package from where it was imported itself."""
    finder = Finder(__file__.rpartition("/")[0].rpartition("/")[0])
    sys.meta_path.insert(0, finder)
    return finder
