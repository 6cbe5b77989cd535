"""libseccomp.so.2, as far as compiling a profile needs it (seccomp_init(3) and its relatives); loaded when first used."""

from __future__ import annotations

import _ctypes
import os

from runtime.errors import KernelFault
from runtime.kernel.libc import prototype

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LIBRARY = "libseccomp.so.2"
ATTR_NO_NEW_PRIVS = 3
"""SCMP_FLTATR_CTL_NNP of enum scmp_filter_attr: whether seccomp_load, which is not used here, sets no_new_privs."""
UNKNOWN = -1
"""__NR_SCMP_ERROR: the library does not know the name."""

_SIGNATURES = {  # the letters are those of runtime.kernel.libc; u32 travels as a long
    "seccomp_init": "l",
    "seccomp_release": "p",
    "seccomp_arch_native": "",
    "seccomp_arch_add": "pl",
    "seccomp_attr_set": "pil",
    "seccomp_syscall_resolve_name": "s",
    "seccomp_syscall_resolve_name_arch": "ls",
    "seccomp_rule_add_array": "pliip",
    "seccomp_export_bpf": "pi",
    "seccomp_version": "",
}
_functions: dict[str, Callable[..., int]] = {}


def call(name: str, *arguments: Any) -> int:
    """Call a function of the library that gives an int; a negative errno says that it failed.

    Raises KernelFault when the library cannot be loaded.
    """
    result = pointer(name, *arguments) & 0xFFFFFFFF
    return result - (1 << 32) if result >= 1 << 31 else result


def pointer(name: str, *arguments: Any) -> int:
    """Call a function of the library that gives a pointer; 0 says that it failed. Raises KernelFault as `call` does."""
    if not _functions:
        _load()
    return int(_functions[name](*arguments))


def _load() -> None:
    try:
        handle = _ctypes.dlopen(LIBRARY, os.RTLD_NOW)
        loaded = {name: prototype(signature)(_ctypes.dlsym(handle, name)) for name, signature in _SIGNATURES.items()}
    except OSError as error:
        raise KernelFault(
            f"{LIBRARY} cannot be loaded ({error}): install libseccomp2, or leave linux.seccomp out",
            feature="libseccomp",
            step="compile the seccomp profile",
        ) from error
    _functions.update(loaded)


def version() -> str:
    """Give the library's version, or "" when it is not installed."""
    import ctypes

    try:
        parts = (ctypes.c_uint * 3).from_address(pointer("seccomp_version"))
    except KernelFault:
        return ""
    return ".".join(map(str, parts))
