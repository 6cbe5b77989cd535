"""Directories whose contents ext4 spreads."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from shim.spread import make_spread

FS_IOC_GETFLAGS = 0x80086601
FS_TOPDIR_FL = 0x00020000


def flags_of(folder: Path) -> int | None:
    """Give ioctl_iflags(2)'s word; None where the file system has none."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        return int.from_bytes(fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8))[:4], "little")
    except OSError:
        return None
    finally:
        os.close(fd)


def is_ext4(folder: Path) -> bool:
    found = ("", "")
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _source, place, kind = line.split()[:3]
        if str(folder).startswith(place) and len(place) >= len(found[0]):
            found = (place, kind)
    return found[1] == "ext4"


def test_made_once_and_marked_where_that_is_known(tmp_path: Path) -> None:
    folder = tmp_path / "above" / "folder"
    make_spread(str(folder))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o711
    (folder / "kept").mkdir()
    folder.chmod(0o700)
    make_spread(str(folder))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "kept").is_dir()
    flags = flags_of(folder)
    if is_ext4(folder):
        assert flags is not None
        assert flags & FS_TOPDIR_FL


def test_no_word_of_it_elsewhere() -> None:
    folder = f"/dev/shm/wherry-spread-{os.getpid()}"
    make_spread(folder)
    os.rmdir(folder)
