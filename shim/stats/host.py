"""What metrics need to know of the node: its block devices' names and the file system with the writable layers."""

from __future__ import annotations

import os

from shim.stats.values import FileSystem

BLOCK_DEVICES = "/sys/dev/block"


def device_names(folder: str = BLOCK_DEVICES) -> dict[tuple[int, int], str]:
    """Give the names (/dev/sda) of all block devices by their numbers (sysfs(5))."""
    names = {}
    try:
        entries = os.listdir(folder)
    except OSError:
        return {}
    for entry in entries:
        major, _, minor = entry.partition(":")
        try:
            names[int(major), int(minor)] = f"/dev/{os.path.basename(os.readlink(f'{folder}/{entry}'))}"
        except (OSError, ValueError):
            continue
    return names


def file_system(path: str, names: dict[tuple[int, int], str]) -> FileSystem | None:
    """Give the file system that holds `path`; one without a block device is named by its numbers."""
    try:
        found, device = os.statvfs(path), os.stat(path).st_dev
    except OSError:
        return None
    numbers = os.major(device), os.minor(device)
    return FileSystem(
        device=names.get(numbers, f"{numbers[0]}:{numbers[1]}"),
        size=found.f_blocks * found.f_frsize,
        inodes=found.f_files,
        inodes_free=found.f_ffree,
    )
