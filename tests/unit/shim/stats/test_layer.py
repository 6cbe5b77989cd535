"""Writable layers: what a walk counts, and who waits for it (nobody)."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from shim.stats import layer
from shim.stats.layer import LayerUsages
from shim.stats.walk import BLOCK, run, walk

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_walk_counts_blocks_and_inodes_once(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_bytes(b"x" * 100_000)
    os.link(tmp_path / "a/b/file", tmp_path / "a/other")
    (tmp_path / "link").symlink_to("/")
    expected = sum(
        path.lstat().st_blocks
        for path in (tmp_path, tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/file", tmp_path / "link")
    )
    assert walk(str(tmp_path)) == (expected * BLOCK, 5)
    assert run({"path": str(tmp_path)}, [], print) == {"used": expected * BLOCK, "inodes": 5}


def test_a_walk_gives_up_on_a_large_tree(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).touch()
    assert walk(str(tmp_path), 10) is None
    assert walk(str(tmp_path), 21) is not None
    assert walk(str(tmp_path / "absent")) == (0, 0)


class Walker:
    """Walks that end when they are told to."""

    def __init__(self) -> None:
        self.small: list[str] = []
        self.large: list[str] = []
        self.result: tuple[int, int] | None = (4096, 3)
        self.go = asyncio.Event()

    async def walk_small(self, directory: str) -> tuple[int, int] | None:
        self.small.append(directory)
        await self.go.wait()
        return self.result

    async def walk_large(self, directory: str) -> tuple[int, int] | None:
        self.large.append(directory)
        if directory.endswith("bad"):
            raise OSError("no")
        return (1 << 30, 100_000)


async def test_the_answer_comes_before_the_walk_is_done(tmp_path: Path) -> None:
    walker = Walker()
    layers = LayerUsages(walker.walk_small, walker.walk_large)
    first = layers.get("a", str(tmp_path))
    assert first is not None
    assert (first.used_bytes, first.inodes) == (tmp_path.lstat().st_blocks * BLOCK, 1)
    for _ in range(5):
        assert layers.get("a", str(tmp_path)) == first
    walker.go.set()
    await layers.settled()
    second = layers.get("a", str(tmp_path))
    assert second is not None
    assert (second.used_bytes, second.inodes) == (4096, 3)
    assert second.at >= first.at
    assert walker.small == [str(tmp_path)]  # fresh: not measured again


async def test_an_old_result_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(layer, "PATIENCE", 0.0)
    walker = Walker()
    walker.go.set()
    layers = LayerUsages(walker.walk_small, walker.walk_large)
    for _ in range(3):
        layers.get("a", str(tmp_path))
        await layers.settled()
    assert len(walker.small) == 3


async def test_a_large_layer_goes_to_a_job_and_a_failure_stops_nobody(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    bad.mkdir()
    good.mkdir()
    walker = Walker()
    walker.result = None
    walker.go.set()
    layers = LayerUsages(walker.walk_small, walker.walk_large)
    layers.get("bad", str(bad))
    layers.get("good", str(good))
    await layers.settled()
    found, kept = layers.get("good", str(good)), layers.get("bad", str(bad))
    assert found is not None
    assert kept is not None
    assert (found.inodes, kept.inodes) == (100_000, 1)


async def test_no_layer_and_forgotten_ones(tmp_path: Path) -> None:
    walker = Walker()
    walker.go.set()
    layers = LayerUsages(walker.walk_small, walker.walk_large)
    assert layers.get("a", str(tmp_path / "absent")) is None
    layers.get("b", str(tmp_path))
    layers.keep({"c"})
    await layers.settled()
    assert layers.get("b", str(tmp_path / "absent")) is None
