"""A host of the judge's own: mounts, and a network for each test, in namespaces that end with it."""

from __future__ import annotations

import ctypes
import os
import subprocess

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
PRIVATE_FOLDERS = ("/run", "/var/lib/cni")
"""Where plugins and `ip netns` keep what is only theirs; the judge's are empty at first, and in memory."""


def enter() -> None:
    """Move this process, which has one thread and is root, into mounts of its own. OSError when it may not."""
    _unshare(CLONE_NEWNS)
    run("mount", "--make-rprivate", "/")
    for folder in PRIVATE_FOLDERS:
        os.makedirs(folder, exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
    new_network()


def new_network() -> None:
    """Exchange this process's network for a new one; the old one ends with its last user."""
    _unshare(CLONE_NEWNET)
    run("ip", "link", "set", "lo", "up")


def _unshare(kinds: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(kinds) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"unshare: {os.strerror(error)}; the judge must be root")


def run(*command: str) -> str:
    """Run a program of the host and give what it said; AssertionError when it failed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"`{' '.join(command)}`: {done.stderr.strip() or done.returncode}"
    return done.stdout
