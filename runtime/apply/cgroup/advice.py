"""What to do about a limit that the kernel refuses, by the file and the errno; loaded only then."""

from __future__ import annotations

from errno import EACCES, EBUSY, EINVAL, ENOSPC, EPERM, ERANGE, EROFS

_QUOTA = "its quota and period are 1 ms to 1 s, and no share of them over that of the cgroup above: ask for less, or raise that"
_MEMORY = "memory with swap is no less than memory: ask for more"
_CPUSET = "the cgroup above has not all of these: ask for some of its own, or give it more"
_ADVICE: tuple[tuple[str, tuple[int, ...], str], ...] = (
    ("cpu.cfs_", (EINVAL,), _QUOTA),
    ("cpu.max", (EINVAL, ERANGE), _QUOTA),
    ("cpuset.", (EACCES, EINVAL, ERANGE, ENOSPC), _CPUSET),
    ("memory.", (EBUSY,), "the container uses more than that: ask for more, or end some of its processes"),
    ("memory.memsw", (EINVAL,), _MEMORY),
    ("", (EPERM, EACCES, EROFS), "the cgroup above was not delegated to this user"),
)


def advice(file: str, errno: int | None) -> str:
    """Give ": …" for the message, "" where nothing is known."""
    return next((f": {words}" for start, numbers, words in _ADVICE if file.startswith(start) and errno in numbers), "")
