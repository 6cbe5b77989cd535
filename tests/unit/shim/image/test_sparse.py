"""Sparse files: what GNU tar writes comes back as it was, holes included, and a lying map is refused."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from shim.errors import FailedPrecondition, ResourceExhausted
from shim.image.unpack import sparse
from shim.image.unpack.streams import Source, open_stream
from shim.image.unpack.tar import Limits, TarInput, TarReader
from tests.support.tools import find_tool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 900_000


class _Tape:
    def raw(self, data: bytes, /) -> None:
        pass


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_what_gnu_tar_packed(tmp_path: Path, target: int, version: str) -> None:
    with open(tmp_path / "holes", "wb") as file:
        for offset in (0, 300_000, 640_000):
            file.seek(offset)
            file.write(os.urandom(5000))
        file.truncate(SIZE)
    archive = tmp_path / "archive"
    options = ["--format=posix", "--sparse", f"--sparse-version={version}", "--hole-detection=raw"]
    subprocess.run([find_tool("tar"), *options, "-C", tmp_path, "-cf", archive, "holes"], check=True)
    assert archive.stat().st_size < 100_000
    descriptor = os.open(archive, os.O_RDONLY)
    try:
        reader = _reader(descriptor, archive.stat().st_size)
        entry = reader.next()
        assert entry is not None
        assert entry.name == b"holes"
        assert entry.layout is not None
        sparse.restore(target, entry.layout, reader.payload(entry.size))
        assert reader.next() is None
    finally:
        os.close(descriptor)
    assert os.pread(target, SIZE + 1, 0) == (tmp_path / "holes").read_bytes()
    assert os.fstat(target).st_blocks * 512 < SIZE // 2


def _reader(descriptor: int, length: int, max_bytes: int = 1 << 24) -> TarReader:
    limits = Limits(max_bytes=max_bytes, max_entries=10, max_ratio=100)
    source = Source(descriptor, offset=0, length=length)
    return TarReader(TarInput(open_stream(source), source, limits), _Tape(), limits)


@pytest.mark.parametrize(
    "records",
    [
        {b"size": b"10", b"map": b"0,5,3,2"},
        {b"size": b"10", b"map": b"8,5"},
        {b"size": b"10", b"map": b"0,5,6"},
        {b"size": b"10", b"map": b"-1,5"},
        {b"size": b"x", b"map": b"0,5"},
        {b"map": b"0,5"},
        {b"size": b"9" * 30, b"map": b""},
    ],
)
def test_a_map_that_cannot_be(records: dict[bytes, bytes]) -> None:
    with pytest.raises(FailedPrecondition, match="sparse file"):
        sparse.layout({sparse.PREFIX + name: value for name, value in records.items()})


@pytest.mark.parametrize(
    ("extents", "data"),
    [
        (((0, 5),), b"1234"),
        (((0, 5),), b"123456"),
        (None, b"1\n0\n5\n".ljust(512, b"\0") + b"1234"),
        (None, b"1\n0\n50\n".ljust(512, b"\0")),
        (None, b"7"),
        (None, b"x\n".ljust(512, b"\0")),
        (None, b"9" * 512),
        (None, bytes(2 * sparse.MAX_MAP)),
    ],
)
def test_data_that_does_not_fit_its_map(target: int, extents: tuple[tuple[int, int], ...] | None, data: bytes) -> None:
    with pytest.raises(FailedPrecondition, match="sparse file"):
        sparse.restore(target, sparse.Layout(size=10, extents=extents), [memoryview(data)])


def test_a_size_beyond_the_limit(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    with open(tmp_path / "holes", "wb") as file:
        file.truncate(SIZE)
    subprocess.run([find_tool("tar"), "--format=posix", "--sparse", "-C", tmp_path, "-cf", archive, "holes"], check=True)
    descriptor = os.open(archive, os.O_RDONLY)
    try:
        with pytest.raises(ResourceExhausted, match="max_layer_bytes"):
            _reader(descriptor, archive.stat().st_size, SIZE - 1).next()
    finally:
        os.close(descriptor)
