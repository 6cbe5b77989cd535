"""Opening below a directory that somebody else may write to."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from shim.beneath import open_beneath

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "number"),
    [("link", errno.ELOOP), ("folder/link/x", errno.ELOOP), ("absent/x", errno.ENOENT), ("../outside", errno.EXDEV)],
)
def test_what_leads_elsewhere_is_told_by_its_whole_name(tmp_path: Path, name: str, number: int) -> None:
    (tmp_path / "in/folder").mkdir(parents=True)
    (tmp_path / "outside").touch()
    (tmp_path / "in/link").symlink_to(tmp_path / "outside")
    (tmp_path / "in/folder/link").symlink_to(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        open_beneath(f"{tmp_path}/in/{name}", f"{tmp_path}/in", os.O_RDONLY)
    assert (caught.value.errno, caught.value.filename) == (number, f"{tmp_path}/in/{name}")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_directory_that_is_gone_is_told_by_what_was_wanted(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        open_beneath(f"{tmp_path}/gone/log", f"{tmp_path}/gone", os.O_RDONLY)
    assert caught.value.filename == f"{tmp_path}/gone/log"


def test_what_lies_there_is_opened(tmp_path: Path) -> None:
    fd = open_beneath(f"{tmp_path}/log", f"{tmp_path}/", os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(fd, b"x")
    os.close(fd)
    assert (tmp_path / "log").read_bytes() == b"x"
