"""Which metrics this node's kernel does not tell of any container: what is described has to come, and kubelet asks once."""

from __future__ import annotations

import glob
import os

ROOT = "/sys/fs/cgroup"
_V2 = (
    "container_memory_events_high_total",
    "container_memory_events_max_total",
    "container_memory_pgscan_total",
    "container_memory_pgsteal_total",
)
_SCHEDULED = (
    "container_fs_reads_merged_total",
    "container_fs_writes_merged_total",
    "container_fs_read_seconds_total",
    "container_fs_write_seconds_total",
    "container_fs_io_time_seconds_total",
    "container_fs_io_current",
)
_COST = tuple(f"container_fs_io_cost_{name}_seconds_total" for name in ("usage", "wait", "indebt", "indelay"))
_HUGE_PAGES = ("container_hugetlb_failcnt",)


def untold(root: str = ROOT) -> frozenset[str]:
    """Give the names of metrics that no control group of this node has."""
    names: set[str] = set()
    if not os.path.exists(f"{root}/cgroup.controllers"):
        names.update(_V2)
    if not glob.glob(f"{root}/blkio/blkio*.io_merged*"):
        names.update(_SCHEDULED)
    if "enable=1" not in _text(f"{root}/io.cost.qos"):
        names.update(_COST)
    controllers = _text(f"{root}/cgroup.controllers") + _text(f"{root}/unified/cgroup.controllers")
    if "hugetlb" not in controllers and not os.path.exists(f"{root}/hugetlb/cgroup.procs"):
        names.update(_HUGE_PAGES)
    return frozenset(names)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(65536)
    except OSError:
        return ""
