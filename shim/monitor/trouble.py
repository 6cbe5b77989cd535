"""A monitor's own log: only trouble, and only so much of it."""

from __future__ import annotations

import contextlib
import os
import time

LIMIT = 256 * 1024
"""Bytes the file may have before it begins anew; the one before is kept beside it."""
_ENTRY_LIMIT = 8192


class TroubleLog:
    """A file in the pod's state directory; opened for each entry, because there should be none."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, text: str) -> None:
        """Append an entry with the time; a failure to do so is swallowed, there is nobody to tell."""
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(self._path, flags, 0o600)
            try:
                if os.fstat(fd).st_size > LIMIT:
                    os.rename(self._path, f"{self._path}.1")
                stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                os.write(fd, f"{stamp} {text.rstrip()[:_ENTRY_LIMIT]}\n".encode(errors="replace"))
            finally:
                os.close(fd)
