"""Stand-ins for modules whose import costs more than what `wherry-oci` wants of them, until somebody wants more.

`os` brings twenty-five abstract base classes along, a millisecond of each command; all that is asked of it are the functions of
`posix` and a few lines more. `from __future__ import` is meant for the compiler, and at run time reads a file. A name that a
stand-in does not have brings the real module, which takes its place, so that nobody can tell the difference but by a clock; but
a process that has entered a container imports no more, so what is used there must be here (a test looks at all that is used).
"""

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
else:
    ModuleType = type(sys)

_ENCODING = (sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())


def install() -> None:
    """Have imports of `os` and `__future__` give stand-ins, where the real modules are not there already."""
    _stand_in("__future__", annotations=None)
    if "os" not in sys.modules:
        environ = {fsdecode(name): fsdecode(value) for name, value in posix.environ.items()}
        names = {name: value for name, value in vars(posix).items() if name == "_exit" or name[0] != "_"}
        names |= {"SEEK_SET": 0, "environ": environ, "fsdecode": fsdecode, "fsencode": fsencode}
        module = _stand_in("os", **names)
        import posixpath  # which imports os

        module.path = sys.modules["os.path"] = posixpath  # type: ignore[attr-defined]  # made here


def _stand_in(name: str, **known: object) -> ModuleType:
    module = ModuleType(name)

    def missing(attribute: str) -> object:
        if attribute.startswith("__"):  # what importing asks for
            raise AttributeError(attribute)
        if sys.modules.get(name) is module:
            del sys.modules[name]
        return getattr(__import__(name), attribute)

    module.__dict__.update(known, __getattr__=missing)
    return sys.modules.setdefault(name, module)


def fsencode(name: str | bytes) -> bytes:
    """Do what os.fsencode does."""
    name = posix.fspath(name)
    return name.encode(*_ENCODING) if isinstance(name, str) else name


def fsdecode(name: str | bytes) -> str:
    """Do what os.fsdecode does."""
    name = posix.fspath(name)
    return name.decode(*_ENCODING) if isinstance(name, bytes) else name
