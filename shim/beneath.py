"""Open what lies in a directory that others may write to: through no symbolic link below it, and nothing above it."""

from __future__ import annotations

import os

from runtime.kernel.path import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2


def open_beneath(path: str, directory: str, flags: int, mode: int = 0) -> int:
    """Open the absolute `path`, which begins with `directory`; raise OSError naming `path`, with ELOOP for a symbolic link.

    How `directory` itself is reached is its owner's affair: links on the way there are followed. See openat2(2).
    """
    name = path.removeprefix(directory.rstrip("/") + "/")
    try:
        folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return openat2(folder, name, flags, mode=mode, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
        finally:
            os.close(folder)
    except OSError as error:
        error.filename = path
        raise
