"""Cgroups of every layout, as trees of files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runtime.plan.cgroup import Hierarchy, Layout
from shim.stats.cgroup import Groups
from shim.stats.processes import members

if TYPE_CHECKING:
    from pathlib import Path

PSI = "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=4\n"
V1 = {
    "cpu": {"cpu.stat": "nr_periods 2\nnr_throttled 1\nthrottled_time 9\n"},
    "cpuacct": {"cpuacct.usage": "1000\n", "cpuacct.stat": "user 1\nsystem 2\n"},
    "memory": {
        "memory.usage_in_bytes": "5000\n",
        "memory.stat": "total_rss 1\ntotal_inactive_file 1000\nhierarchical_memsw_limit 9223372036854771712\n",
        "memory.limit_in_bytes": "9223372036854771712\n",
        "memory.kmem.usage_in_bytes": "7\n",
        "memory.failcnt": "3\n",
        "memory.max_usage_in_bytes": "6000\n",
        "memory.soft_limit_in_bytes": "9223372036854771712\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    },
    "pids": {"pids.current": "4\n", "pids.max": "max\n", "cgroup.procs": "11\n12\n"},
    "blkio": {"blkio.throttle.io_service_bytes_recursive": "8:0 Read 1\nTotal 1\n"},
    "hugetlb": {
        "hugetlb.2MB.usage_in_bytes": "10\n",
        "hugetlb.2MB.max_usage_in_bytes": "20\n",
        "hugetlb.2MB.rsvd.usage_in_bytes": "9\n",
    },
}
V2 = {
    "cpu.stat": "usage_usec 1\nuser_usec 1\nsystem_usec 0\n",
    "memory.current": "5000\n",
    "memory.stat": "anon 1\ninactive_file 1000\n",
    "memory.max": "8000\n",
    "memory.swap.current": "1\n",
    "memory.swap.max": "max\n",
    "memory.events": "low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\n",
    "memory.peak": "6000\n",
    "memory.low": "0\n",
    "pids.current": "4\n",
    "pids.max": "100\n",
    "cgroup.procs": "11\n",
    "cpu.pressure": PSI,
    "io.stat": "8:0 rbytes=1 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n",
    "hugetlb.2MB.current": "10\n",
}


def layout(folder: Path, keys: list[str]) -> Layout:
    """Give a layout whose hierarchies lie side by side; "" is v2's."""
    return Layout(
        hierarchies=tuple(
            Hierarchy(key=key, mount=str(folder / (key or "unified")), controllers=tuple(key.split(",")), own="/")
            for key in keys
        )
    )


def fill(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(content)


def test_v1_with_controllers_mounted_apart(tmp_path: Path) -> None:
    for key, files in V1.items():
        fill(tmp_path / key / "pod/box", files)
    group = Groups(layout(tmp_path, list(V1))).find("/pod/box")
    usage = group.detailed_usage()
    assert usage.cpu is not None
    assert usage.memory is not None
    assert (usage.cpu.usage, usage.cpu.throttled_periods) == (1000, 1)
    assert (usage.memory.working_set, usage.memory.available, usage.memory.kernel) == (4000, None, 7)
    assert usage.cpu_pressure is None
    details = group.details()
    assert details.events is not None
    assert (details.events.limit_hits, details.events.oom_kills, details.events.peak, details.events.reservation) == (
        3,
        2,
        6000,
        None,
    )
    assert (details.tasks, details.tasks_limit) == (4, 0)
    assert details.io[0].bytes == {"read": 1}
    assert [(pages.size, pages.usage, pages.peak) for pages in details.huge_pages] == [("2MB", 10, 20)]
    assert members(group.member_directory) == [11, 12]


def test_v1_with_cpu_and_cpuacct_in_one_and_a_unified_hierarchy_for_pressure(tmp_path: Path) -> None:
    fill(tmp_path / "cpu,cpuacct/box", V1["cpu"] | V1["cpuacct"])
    fill(tmp_path / "unified/box", {"cpu.pressure": PSI, "memory.pressure": ""})
    group = Groups(layout(tmp_path, ["cpu,cpuacct", ""])).find("/box")
    usage = group.usage()
    assert usage.cpu is not None
    assert usage.cpu.usage == 1000
    assert usage.cpu_pressure is not None
    assert (usage.cpu_pressure.some.total, usage.cpu_pressure.full.total) == (5, 4)
    assert (usage.memory_pressure, usage.io_pressure, usage.memory) == (None, None, None)


def test_v2(tmp_path: Path) -> None:
    fill(tmp_path / "unified/box", V2)
    fill(tmp_path / "unified/box/below", {"cgroup.procs": "12\n"})
    group = Groups(layout(tmp_path, [""])).find("/box")
    usage, details = group.usage(), group.details()
    assert usage.cpu is not None
    assert usage.memory is not None
    assert usage.cpu.usage == 1000
    assert (usage.memory.working_set, usage.memory.available, usage.memory.swap, usage.memory.swap_available) == (
        4000,
        4000,
        1,
        None,
    )
    assert details.events is not None
    assert (details.events.limit_hits, details.events.oom_kills, details.events.peak) == (3, 2, 6000)
    assert (details.tasks, details.tasks_limit, details.io[0].requests["read"]) == (4, 100, 1)
    assert [(pages.size, pages.usage) for pages in details.huge_pages] == [("2MB", 10)]
    assert members(group.member_directory) == [11, 12]


@pytest.mark.parametrize("keys", [["cpu", "memory", "pids", ""], [""], []])
def test_a_cgroup_that_is_gone_has_no_values(tmp_path: Path, keys: list[str]) -> None:
    group = Groups(layout(tmp_path, keys)).find("/box")
    usage, details = group.detailed_usage(), group.details()
    assert (usage.cpu, usage.memory, usage.cpu_pressure, details.tasks, details.io) == (None, None, None, None, ())
    assert usage.at > 0
    assert members(group.member_directory) == []
