"""What a container may have left on the host once it is deleted.

Everything a test makes carries its own name, so that tests can run beside each other.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from conformance.oci.support import host, wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def mounts_below(folder: Path) -> list[str]:
    """Give the mount points below a folder, the deepest first."""
    points = [line.split(" ")[4] for line in host.read("/proc/self/mountinfo").splitlines()]
    return sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True)


def cgroups_named(name: str) -> Iterator[str]:
    """Give the cgroup folders of a container at the places where its path puts them."""
    for point in set(host.cgroup_mounts().values()):
        for folder in (f"{point}/{name}", f"{point}/system.slice/judge-{name}.scope"):
            if os.path.isdir(folder):
                yield folder


def left_state(root: Path) -> list[str]:
    """Give the containers' folders below --root."""
    with suppress(FileNotFoundError):
        return sorted(os.listdir(root))
    return []


def describe(pid: int) -> str:
    """Name a process for a person."""
    return f"{pid} ({host.read(f'/proc/{pid}/cmdline').replace(chr(0), ' ').strip() or host.read(f'/proc/{pid}/comm')})"


def find(folder: Path, state: Path, ids: list[str]) -> list[str]:
    """Name everything that is still there; processes get a moment to end, because a SIGKILL is not waited for by all."""
    with suppress(AssertionError):
        wait.wait_for(lambda: not wait.collect(), "processes to end", 2)
    found = [f"process {describe(pid)}" for pid in wait.collect()]
    found += [f"mount {point}" for point in mounts_below(folder)]
    found += [f"cgroup {path}" for name in ids for path in cgroups_named(name)]
    found += [f"state {name}" for name in left_state(state) if name in ids]
    return found


def sweep(folder: Path, ids: list[str]) -> None:
    """Remove what was found, so that one failing test spoils no other."""
    for pid in wait.collect():
        with suppress(ProcessLookupError):
            os.kill(pid, 9)
    with suppress(AssertionError):
        wait.wait_for(lambda: not wait.collect(), "killed processes to end", 3)
    for point in mounts_below(folder):
        os.spawnvp(os.P_WAIT, "umount", ["umount", "-l", point])
    for name in ids:
        for path in cgroups_named(name):
            for below, _, _ in os.walk(path, topdown=False):
                with suppress(OSError):
                    os.rmdir(below)
