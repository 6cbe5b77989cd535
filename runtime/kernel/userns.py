"""User namespaces that nobody lives in: made (or joined) by a child that ends again, kept by a descriptor (user_namespaces(7)).

Id-mapped mounts want one (mount_setattr(2)), and the map files of a namespace can be read and written only while a process is
in it.
"""

from __future__ import annotations

import os

from runtime.kernel.fork import fork
from runtime.kernel.namespace import CLONE_NEWUSER, setns, unshare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_MAP_LIMIT = 64 * 1024


def make(uid_map: str, gid_map: str) -> int:
    """Make a user namespace with these maps and give its descriptor, close-on-exec; raise OSError."""
    with _Visitor(lambda: unshare(CLONE_NEWUSER)) as pid:
        _write(pid, "uid_map", uid_map)
        _write(pid, "gid_map", gid_map)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


def maps(namespace_fd: int) -> tuple[str, str]:
    """Give uid_map and gid_map of a user namespace as this process's namespace sees them; raise OSError."""
    with _Visitor(lambda: setns(namespace_fd, CLONE_NEWUSER)) as pid:
        return _read(pid, "uid_map"), _read(pid, "gid_map")


class _Visitor:
    """A child that has entered a namespace, and ends with the context."""

    __slots__ = ("_entered", "_leave", "pid")

    def __init__(self, enter: Callable[[], None]) -> None:
        self._entered, told = os.pipe2(os.O_CLOEXEC)
        waiting, self._leave = os.pipe2(os.O_CLOEXEC)
        self.pid = fork()
        if self.pid == 0:
            _be_visitor(enter, told, waiting, (self._entered, self._leave))
        os.close(told)
        os.close(waiting)

    def __enter__(self) -> int:
        answer = os.read(self._entered, 16)
        if answer != b"0":
            self.__exit__()
            number = int(answer or b"0")
            raise OSError(number, os.strerror(number) if number else "the helper died")
        return self.pid

    def __exit__(self, *_error: object) -> None:
        os.close(self._entered)
        os.close(self._leave)
        os.waitpid(self.pid, 0)


def _be_visitor(enter: Callable[[], None], told: int, waiting: int, others: tuple[int, int]) -> None:
    try:
        for fd in others:
            os.close(fd)
        try:
            enter()
        except OSError as error:
            os.write(told, str(error.errno or 1).encode())
            return
        os.write(told, b"0")
        os.read(waiting, 1)
    finally:
        os._exit(0)


def _write(pid: int, name: str, text: str) -> None:
    path = f"/proc/{pid}/{name}"
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(fd)


def _read(pid: int, name: str) -> str:
    fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _MAP_LIMIT).decode()
    finally:
        os.close(fd)
