"""What is said about a limit that the kernel refuses."""

from __future__ import annotations

from errno import EACCES, EBUSY, EINVAL, EIO, ERANGE

import pytest

from runtime.apply.cgroup.advice import advice


@pytest.mark.parametrize(
    ("file", "number", "words"),
    [
        ("cpu.cfs_quota_us", EINVAL, "that of the cgroup above"),
        ("cpu.max", EINVAL, "1 ms to 1 s"),
        ("cpuset.cpus", EACCES, "the cgroup above has not all of these"),
        ("cpuset.mems", ERANGE, "the cgroup above has not all of these"),
        ("memory.limit_in_bytes", EBUSY, "the container uses more than that"),
        ("memory.memsw.limit_in_bytes", EINVAL, "no less than memory"),
        ("pids.max", EACCES, "not delegated"),
    ],
)
def test_the_cause_is_named(file: str, number: int, words: str) -> None:
    assert advice(file, number).startswith(": ")
    assert words in advice(file, number)


def test_what_is_unknown_is_left_to_the_kernel_s_own_words() -> None:
    assert (advice("cpu.max", EIO), advice("pids.max", None)) == ("", "")
