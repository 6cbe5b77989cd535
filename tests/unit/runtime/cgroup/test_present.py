"""What a change of one limit takes for granted of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runtime.apply.cgroup import from_paths
from runtime.apply.cgroup.present import completed, require_more_than_used
from runtime.errors import CgroupFault
from runtime.spec.resources import Cpu, Memory, Resources

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("now", "asked", "wanted"),
    [
        ("500000 1000000", Cpu(period=900_000), (500_000, 900_000)),
        ("500000 1000000", Cpu(quota=-1), (-1, 1_000_000)),
        ("max 100000", Cpu(period=50_000), (None, 50_000)),
        ("max 100000", Cpu(quota=20_000, period=50_000), (20_000, 50_000)),
        ("500000 1000000", Cpu(shares=100), (None, None)),
        (None, Cpu(period=900_000), (None, 900_000)),
    ],
)
def test_quota_and_period_are_one_file(tmp_path: Path, now: str | None, asked: Cpu, wanted: tuple[int | None, ...]) -> None:
    if now is not None:
        (tmp_path / "cpu.max").write_text(f"{now}\n")
    found = completed(from_paths((("", str(tmp_path)),)), Resources(cpu=asked)).cpu
    assert (found.quota, found.period) == wanted


@pytest.mark.parametrize(("now", "limit"), [("1000", 1000), ("max", None)])
def test_swap_is_counted_beside_the_memory(tmp_path: Path, now: str, limit: int | None) -> None:
    (tmp_path / "memory.max").write_text(f"{now}\n")
    found = completed(from_paths((("", str(tmp_path)),)), Resources(memory=Memory(swap=5000)))
    assert found.memory == Memory(swap=5000, limit=limit)


def test_v1_has_two_files(tmp_path: Path) -> None:
    (tmp_path / "cpu.cfs_quota_us").write_text("7\n")
    asked = Resources(cpu=Cpu(period=900_000))
    assert completed(from_paths((("cpu,cpuacct", str(tmp_path)),)), asked) == asked


@pytest.mark.parametrize("asked", [Memory(limit=5000), Memory(limit=-1, swap=4000)])
def test_a_limit_below_what_is_used_can_be_refused(tmp_path: Path, asked: Memory) -> None:
    (tmp_path / "memory.current").write_text("5000\n")
    with pytest.raises(CgroupFault, match=r"rejecting memory.* limit [45]000 <= usage 5000"):
        require_more_than_used(from_paths((("", str(tmp_path)),)), asked)


@pytest.mark.parametrize("asked", [Memory(limit=5001), Memory(limit=-1, swap=-1), Memory()])
def test_a_limit_that_leaves_room_is_taken(tmp_path: Path, asked: Memory) -> None:
    (tmp_path / "memory.current").write_text("5000\n")
    require_more_than_used(from_paths((("", str(tmp_path)),)), asked)
    require_more_than_used(from_paths((("", str(tmp_path)), ("memory", str(tmp_path)))), Memory(limit=1))
