"""Find a criu that works on this kernel: the installed one, or the newer one that newer_criu.sh has unpacked.

A kernel that can have processes restored (CONFIG_CHECKPOINT_RESTORE) has some criu that works, so that in CI its absence is a
failure like that of every other tool; where the kernel cannot, no criu helps, and the tests are skipped everywhere.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tools import in_ci

UNPACKED = Path(sys.prefix) / "criu" / "criu"
FETCH = "run tests/support/newer_criu.sh .venv/criu"
KERNEL_CAN = "/proc/sys/kernel/ns_last_pid"
"""A file that kernels with CONFIG_CHECKPOINT_RESTORE have."""


@functools.cache
def working_criu() -> str:
    """Give the path of a criu that passes its own check, empty where there is none."""
    for path in (shutil.which("criu"), str(UNPACKED)):
        if path and os.access(path, os.X_OK) and _passes(path):
            return path
    return ""


def need_criu() -> str:
    """Give the path of a criu that works; without one fail in CI, and skip at home or where no criu could work."""
    path = working_criu()
    if path:
        return path
    if not os.path.exists(KERNEL_CAN):
        pytest.skip("this kernel restores no processes (CONFIG_CHECKPOINT_RESTORE is off)")
    message = f"no criu here works on this kernel: {FETCH}"
    if in_ci():
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def _passes(path: str) -> bool:
    return subprocess.run([path, "check"], capture_output=True, check=False, timeout=60).returncode == 0


def failing_criu() -> str:
    """Give the path of an installed criu that does not know this kernel, empty where it does or there is none."""
    path = shutil.which("criu")
    return path if path and not _passes(path) else ""
