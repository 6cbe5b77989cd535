"""Find a criu that works on this kernel: the installed one, or the newer one that newer_criu.sh has unpacked."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

UNPACKED = Path(sys.prefix) / "criu" / "criu"
FETCH = "run tests/support/newer_criu.sh .venv/criu"


@functools.cache
def working_criu() -> str:
    """Give the path of a criu that passes its own check, empty where there is none."""
    for path in (shutil.which("criu"), str(UNPACKED)):
        if path and os.access(path, os.X_OK) and _passes(path):
            return path
    return ""


def _passes(path: str) -> bool:
    return subprocess.run([path, "check"], capture_output=True, check=False, timeout=60).returncode == 0


def failing_criu() -> str:
    """Give the path of an installed criu that does not know this kernel, empty where it does or there is none."""
    path = shutil.which("criu")
    return path if path and not _passes(path) else ""
