"""The machine is what the other tests here take for granted; without it they would prove nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.apply.cgroup import detect

pytestmark = pytest.mark.vm

CAP_SYS_RESOURCE = 24


def test_systemd_is_the_first_process() -> None:
    assert Path("/proc/1/comm").read_text() == "systemd\n"
    assert Path("/run/systemd/system").is_dir()


def test_only_cgroup_v2_is_mounted_with_every_controller() -> None:
    layout = detect()
    assert layout.kind == "v2"
    wanted = {"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"}
    assert wanted <= set(layout.hierarchies[0].controllers)


def test_oom_scores_may_be_lowered() -> None:
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    assert int(effective, 16) >> CAP_SYS_RESOURCE & 1
