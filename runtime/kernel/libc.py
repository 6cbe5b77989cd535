"""One handle on the C library, and the means to declare its functions and the kernel's system calls.

The `_ctypes` extension is used without the `ctypes` package around it: a declaration needs four letters, and importing the
package costs two milliseconds of every `wherry-oci run`. Every wrapper raises OSError with the errno and, where there is
one, the path. Signatures are strings of one letter an argument:

    i  int      l  long, size_t, mode_t, unsigned long      s  const char * (bytes or None)      p  void * (bytes, buffer, int)
"""

from __future__ import annotations

import _ctypes
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001 - the public names live in the package we avoid
    _type_ = "i"


class _Long(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001 - as above
    _type_ = "l"


class _Text(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001 - as above
    _type_ = "z"


class _Pointer(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001 - as above
    _type_ = "P"


class _Char(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001 - as above
    _type_ = "c"


_LETTERS = {"i": _Int, "l": _Long, "s": _Text, "p": _Pointer}
_META: Any = type(_ctypes.CFuncPtr)
_FLAGS = 0x1 | 0x8  # FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO of the ctypes implementation
_HANDLE = _ctypes.dlopen(None, os.RTLD_NOW)  # type: ignore[arg-type]  # the stub does not know that None is this program
_prototypes: dict[str, type[_ctypes.CFuncPtr]] = {}


def prototype(signature: str) -> type[_ctypes.CFuncPtr]:
    """Give the type of C functions with that signature that return a long; it takes an address."""
    known = _prototypes.get(signature)
    if known is None:
        arguments = [_LETTERS[letter] for letter in signature]
        body = {"_flags_": _FLAGS, "_restype_": _Long, "_argtypes_": arguments}
        known = _prototypes[signature] = _META("Call", (_ctypes.CFuncPtr,), body)
    return known


def function(name: str, signature: str) -> Callable[..., int]:
    """Declare a function of the C library; calling it gives its result and raises OSError when that is -1."""
    return _checked(prototype(signature)(address(name)), name)


def address(name: str) -> int:
    """Give the address of a function of the C library; raise OSError where it has none of that name."""
    return _ctypes.dlsym(_HANDLE, name)


def system_call(name: str, signature: str) -> Callable[..., int]:
    """Declare a system call the C library need not know; calling it raises OSError when the result is -1."""
    number = _NUMBERS[name]
    call = prototype("l" + signature)(address("syscall"))

    def numbered(*arguments: Any) -> int:
        return call(number, *arguments)  # type: ignore[no-any-return]  # ctypes gives no type to a variadic function

    return _checked(numbered, name)


def _checked(call: Callable[..., Any], name: str) -> Callable[..., int]:
    def checked(*arguments: Any, path: str | None = None) -> int:
        result = int(call(*arguments))
        if result == -1 or result & 0xFFFFFFFF == 0xFFFFFFFF:
            raise error(name, path)
        return result

    return checked


def error(call: str, path: str | None = None) -> OSError:
    """Give the OSError for the errno the last call left."""
    number = _ctypes.get_errno()
    failure = OSError(number, os.strerror(number), path)
    failure.add_note(call)
    return failure


def buffer(size: int) -> Any:
    """Give `size` zero bytes of memory a call may write into; `.raw` reads it."""
    return (_Char * size)()


def u64(*values: int) -> bytes:
    """Pack unsigned 64-bit integers in the machine's order, as the extensible structures of newer system calls want."""
    return b"".join((value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, sys.byteorder) for value in values)


def u32(*values: int) -> bytes:
    """Pack unsigned 32-bit integers in the machine's order."""
    return b"".join((value & 0xFFFFFFFF).to_bytes(4, sys.byteorder) for value in values)


_NUMBERS = {  # the same on every architecture since Linux 5.1
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
}
_BY_MACHINE = {
    "x86_64": {
        "pivot_root": 155, "keyctl": 250, "bpf": 321, "seccomp": 317, "ioprio_set": 251, "sched_setattr": 314,
        "set_mempolicy": 238, "execveat": 322,
    },
    "generic": {
        "pivot_root": 41, "keyctl": 219, "bpf": 280, "seccomp": 277, "ioprio_set": 30, "sched_setattr": 274,
        "set_mempolicy": 237, "execveat": 281,
    },
}  # fmt: skip
_NUMBERS.update(_BY_MACHINE["x86_64" if os.uname().machine == "x86_64" else "generic"])
