"""Small JSON files of the pod's state directory, written so that a reader sees the old or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os

from runtime import jsonlite
from runtime.state import write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LIMIT = 1024 * 1024

SOCKET = "monitor.sock"
"""Name of a monitor's socket in its state directory."""


def write_json(path: str, value: Any) -> None:
    """Replace the file at `path` atomically (rename(2)); raise OSError. The directory is a tmpfs: there is nothing to sync."""
    fresh = f"{path}.new"
    write_file(fresh, jsonlite.dumps(value).encode())
    os.rename(fresh, path)


def read_json(path: str) -> Any:
    """Give the value in the file at `path`, None when there is none or it cannot be read as JSON."""
    with contextlib.suppress(OSError, ValueError), open(path, "rb") as file:
        return jsonlite.loads(file.read(_LIMIT))
    return None


def remove(path: str) -> None:
    """Remove a file; one that is gone is no error."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
