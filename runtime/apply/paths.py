"""Paths inside a container's root: looked up with openat2(2), made where they are missing, and used by descriptor only.

The root may hold any symbolic link, and another container may change a shared directory at any moment; RESOLVE_IN_ROOT keeps
every lookup inside whatever happens. A link whose target does not exist is followed by hand, so that a mount on
/etc/resolv.conf -> ../run/resolv.conf makes /run/resolv.conf in the root.
"""

from __future__ import annotations

import errno
import os
import stat

from runtime.kernel.path import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

_O_PATH = os.O_PATH
_SAFE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_MAX_LINKS = 40


class RootPaths:
    """Lookups below one root directory, given as a descriptor that stays the caller's."""

    __slots__ = ("root_fd",)

    def __init__(self, root_fd: int) -> None:
        self.root_fd = root_fd

    def open(self, path: str, flags: int = _O_PATH, *, follow: bool = True, plain: bool = False) -> int:
        """Open `path`; with `plain` no component may be a symbolic link. Raises OSError (ELOOP for a refused link)."""
        resolve = _SAFE | (RESOLVE_NO_SYMLINKS if plain else 0)
        return openat2(self.root_fd, path, flags | (0 if follow else os.O_NOFOLLOW), resolve=resolve)

    def directory(self, path: str, mode: int = 0o755) -> int:
        """Open the directory `path`, making what is missing with `mode`."""
        return self._open_or_make(path, mode, is_directory=True, plain=False)

    def target(self, path: str, *, is_directory: bool, plain: bool = False, follow: bool = True) -> int:
        """Open a mount's destination, making it and the directories above it; with `plain` without following any link.

        Without `follow` a link that is the destination is opened itself.
        """
        if not follow:
            try:
                return self.open(path, follow=False)
            except FileNotFoundError:
                pass
        return self._open_or_make(path, 0o755, is_directory=is_directory, plain=plain)

    def parent(self, path: str) -> tuple[int, str]:
        """Open the directory `path` lies in, making it where needed, and give it with the last name."""
        folder, name = os.path.split(path)
        return self.directory(folder or "/"), name

    def _open_or_make(self, path: str, mode: int, *, is_directory: bool, plain: bool) -> int:
        try:
            return self.open(path, _O_PATH, plain=plain)
        except FileNotFoundError:
            pass
        found = self._make_last(path, mode, is_directory=is_directory, plain=plain)
        if found < 0:
            self._make(path, mode, is_directory=is_directory, plain=plain)
            found = self.open(path, _O_PATH, plain=plain)
        return found

    def _make_last(self, path: str, mode: int, *, is_directory: bool, plain: bool) -> int:
        """Make and open what alone is missing: the last name of `path`; -1 where more than that has to be done."""
        folder, _, name = path.rpartition("/")
        if name in ("", ".", ".."):
            return -1
        try:
            self._make_one(folder or "/", name, mode, is_directory=is_directory, plain=plain)
            return self.open(path, _O_PATH, plain=plain)
        except FileNotFoundError:
            return -1

    def _make(self, path: str, mode: int, *, is_directory: bool, plain: bool) -> None:
        left = [name for name in path.split("/") if name not in ("", ".")]
        done: list[str] = []
        links = 0
        while left:
            name = left.pop(0)
            if name == "..":
                del done[-1:]
                continue
            here = "/".join([*done, name])
            try:
                found = self.open(here, _O_PATH, follow=False)
            except FileNotFoundError:
                self._make_one("/".join(done) or "/", name, mode, is_directory=is_directory or bool(left), plain=plain)
                done.append(name)
                continue
            try:
                if not stat.S_ISLNK(os.fstat(found).st_mode):
                    done.append(name)
                    continue
                target = os.readlink("", dir_fd=found)
            finally:
                os.close(found)
            links += 1
            if plain or links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if target.startswith("/"):
                done = []
            left = [part for part in target.split("/") if part not in ("", ".")] + left

    def _make_one(self, folder: str, name: str, mode: int, *, is_directory: bool, plain: bool) -> None:
        parent = self.open(folder, _O_PATH | os.O_DIRECTORY, plain=plain)
        try:
            if is_directory:
                os.mkdir(name, mode, dir_fd=parent)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=parent))
        except FileExistsError:
            pass  # made meanwhile by someone who shares the directory; the lookup that follows judges it
        finally:
            os.close(parent)
