"""Network namespaces by path: enter one, come back, and set what is set per namespace.

Entering changes the calling thread only, so the caller must be a process of one thread (a job of the spawner, or the
`wherry-cni` program). Source: setns(2), network_namespaces(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING, Final, Self

from cni.errors import CniFault, Code

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLONE_NEWNET: Final = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.setns.restype = ctypes.c_int


class Gone(CniFault):
    """The namespace does not exist (any more); only DEL may take that well."""


class Namespace:
    """An open network namespace; a context manager that closes it."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Gone(f"network namespace {path} does not exist", code=Code.UNKNOWN_CONTAINER) from None
        self._origin = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_unused: object) -> None:
        os.close(self._fd)
        if self._origin >= 0:
            os.close(self._origin)

    @property
    def fd(self) -> int:
        """The descriptor, for netlink attributes that take one."""
        return self._fd

    def same_as_current(self) -> bool:
        """Tell whether this is the namespace the caller is in."""
        mine, other = os.stat("/proc/thread-self/ns/net"), os.fstat(self._fd)
        return (mine.st_dev, mine.st_ino) == (other.st_dev, other.st_ino)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Be in this namespace for a while. Raises Gone when the path is no network namespace (any more)."""
        if self._origin < 0:
            self._origin = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if _libc.setns(self._fd, _CLONE_NEWNET) != 0:
            reason = os.strerror(ctypes.get_errno()).lower()
            raise Gone(f"{self.path} cannot be entered as a network namespace: {reason}", code=Code.UNKNOWN_CONTAINER)
        try:
            yield
        finally:
            if _libc.setns(self._origin, _CLONE_NEWNET) != 0:
                # Nothing done after this would happen where the caller believes it does.
                os._exit(70)


def read_setting(name: str) -> str | None:
    """Give a setting below /proc/sys/net of the current namespace, None when the kernel does not have it."""
    try:
        with open(f"/proc/sys/net/{name}", "rb", buffering=0) as stream:
            return stream.read(4096).decode().strip()
    except FileNotFoundError:
        return None


def write_setting(name: str, value: str) -> None:
    """Set what is below /proc/sys/net, unless it is so already; raise OSError, FileNotFoundError when it is unknown.

    Reading first matters: /proc/sys is read-only in some hosts, and then right values must not fail.
    """
    if read_setting(name) == value:
        return
    with open(f"/proc/sys/net/{name}", "wb", buffering=0) as stream:
        stream.write(value.encode())
