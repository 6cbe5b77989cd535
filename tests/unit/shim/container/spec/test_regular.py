"""Reading a file somebody else named: all of it up to the limit, and no more memory than it takes."""

from __future__ import annotations

import os
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from shim.container.spec.regular import read_regular

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 5000])
def test_one_byte_more_than_the_limit_tells_that_there_is_more(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    assert read_regular(str(tmp_path / "file"), 100, follow=True) == b"x" * min(size, 101)


def test_a_file_that_says_it_is_empty_is_read() -> None:
    assert read_regular("/proc/self/mountinfo", 1 << 22, follow=True)


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert read_regular(str(tmp_path / "fifo"), 100, follow=True) is None
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        read_regular(str(tmp_path / "link"), 100, follow=False)


def test_the_limit_is_not_allocated(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"short")
    tracemalloc.start()
    try:
        assert read_regular(str(tmp_path / "file"), 1 << 24, follow=True) == b"short"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
