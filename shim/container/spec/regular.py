"""Read a file that somebody else named, without hanging on it and without end."""

from __future__ import annotations

import os
import stat

FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def read_regular(path: str, limit: int, *, follow: bool) -> bytes | None:
    """Give at most `limit` + 1 bytes of a regular file, None for anything else; raise OSError when it cannot be opened.

    O_NONBLOCK keeps a fifo from waiting for its writer; one byte more than `limit` tells the caller that there is more.
    """
    descriptor = os.open(path, FLAGS if follow else FLAGS | os.O_NOFOLLOW)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit + 1)
    finally:
        os.close(descriptor)
