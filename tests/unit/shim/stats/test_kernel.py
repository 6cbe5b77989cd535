"""What is described is what this kernel tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shim.stats.catalog import METRICS
from shim.stats.kernel import untold

if TYPE_CHECKING:
    from pathlib import Path

HIGH, MERGED = "container_memory_events_high_total", "container_fs_reads_merged_total"
COST, FAILED = "container_fs_io_cost_usage_seconds_total", "container_hugetlb_failcnt"


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({}, {HIGH, MERGED, COST, FAILED}),
        ({"cgroup.controllers": "cpu memory hugetlb\n", "io.cost.qos": "8:0 enable=1 ctrl=auto\n"}, {MERGED}),
        ({"cgroup.controllers": "cpu\n", "io.cost.qos": "8:0 enable=0\n"}, {MERGED, COST, FAILED}),
        ({"hugetlb/cgroup.procs": "", "blkio/blkio.bfq.io_merged": ""}, {HIGH, COST}),
        ({"unified/cgroup.controllers": "hugetlb\n"}, {HIGH, MERGED, COST}),
    ],
)
def test_by_the_files_of_the_hierarchies(tmp_path: Path, files: dict[str, str], missing: set[str]) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert {HIGH, MERGED, COST, FAILED} & untold(str(tmp_path)) == missing


def test_all_names_are_in_the_catalogue(tmp_path: Path) -> None:
    assert untold(str(tmp_path)) <= {metric.name for metric in METRICS}
