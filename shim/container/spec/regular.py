"""Read a file that somebody else named, without hanging on it and without end."""

from __future__ import annotations

import os
import stat

_CHUNK = 64 * 1024
"""Bytes asked for beyond the size the file had: it may grow, and files of /proc say that they are empty."""
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def read_regular(path: str, limit: int, *, follow: bool) -> bytes | None:
    """Give at most `limit` + 1 bytes of a regular file, None for anything else; raise OSError when it cannot be opened.

    O_NONBLOCK keeps a fifo from waiting for its writer; one byte more than `limit` tells the caller that there is more.
    """
    descriptor = os.open(path, FLAGS if follow else FLAGS | os.O_NOFOLLOW)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        parts = [os.read(descriptor, min(status.st_size, limit) + 1)]  # as much memory as there is to read, not as is allowed
        while parts[-1] and (left := limit + 1 - sum(map(len, parts))) > 0:
            parts.append(os.read(descriptor, min(left, _CHUNK)))
        return b"".join(parts)
    finally:
        os.close(descriptor)
