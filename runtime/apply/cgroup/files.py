"""Read and write cgroup files, whole, and wait for a moment that ends early when something happens."""

from __future__ import annotations

import os


def read(directory: str, file: str) -> str:
    """Give a file's content."""
    fd = os.open(f"{directory}/{file}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)


def write(directory: str, file: str, value: str) -> None:
    """Put a value into a file at once, as every cgroup file wants it."""
    path = f"{directory}/{file}"
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode("utf-8", "surrogateescape"))
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)


def numbers(directory: str, file: str) -> list[int]:
    """Give the process ids a file lists; 0 stands for a process outside our pid namespace and is left out."""
    return [pid for pid in map(int, read(directory, file).split()) if pid]


def keyed(text: str, key: str) -> int:
    """Give the number behind a key in "key value" lines; 0 when it is not there."""
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0


def below(directory: str) -> list[str]:
    """Give the directories below one, children before parents and itself last; nothing when it is gone."""
    try:
        with os.scandir(directory) as entries:
            children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    found: list[str] = []
    for child in children:
        found += below(child)
    return [*found, directory]
