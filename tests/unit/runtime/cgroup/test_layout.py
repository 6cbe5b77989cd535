"""Which hierarchies a host has, and where a container's cgroup lies in them."""

from __future__ import annotations

import pytest

from runtime.errors import CgroupFault
from runtime.plan.cgroup import cgroup_paths, clean, parse_layout, sub_paths

V1_MOUNTS = """\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/memory rw,relatime shared:3 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
50 31 0:50 / /proc rw - proc proc rw
"""
V1_SELF = "9:name=systemd:/user.slice\n4:memory:/process/x\n1:cpu,cpuacct:/\n"
V2_MOUNTS = "31 23 0:28 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_v1() -> None:
    layout = parse_layout(V1_MOUNTS, V1_SELF, "")
    assert layout.kind == "v1"
    assert [(one.key, one.controllers, one.own) for one in layout.hierarchies] == [
        ("cpu,cpuacct", ("cpu", "cpuacct"), "/"),
        ("memory", ("memory",), "/process/x"),
        ("name=systemd", ("name=systemd",), "/user.slice"),
    ]


def test_hybrid() -> None:
    unified = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    layout = parse_layout(V1_MOUNTS + unified, V1_SELF + "0::/\n", "hugetlb")
    assert layout.kind == "hybrid"
    assert layout.hierarchies[-1].controllers == ("hugetlb",)


def test_v2() -> None:
    layout = parse_layout(V2_MOUNTS, "0::/user.slice/session\n", "cpu memory pids")
    assert layout.kind == "v2"
    assert layout.hierarchies[0].controllers == ("cpu", "memory", "pids")


def test_nothing_mounted() -> None:
    assert parse_layout("", "0::/\n", "").kind == "none"


def test_a_mount_of_a_part_hides_what_is_above() -> None:
    layout = parse_layout("31 23 0:28 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/docker/x/y\n", "")
    assert layout.hierarchies[0].own == "/y"


@pytest.mark.parametrize(
    ("wanted", "memory"),
    [
        ("/pods/a", "/sys/fs/cgroup/memory/pods/a"),
        ("pods/a", "/sys/fs/cgroup/memory/process/x/pods/a"),
        ("", "/sys/fs/cgroup/memory/process/x/c1"),
        ("../../a", "/sys/fs/cgroup/memory/process/x/a"),
        ("/../a//b/.", "/sys/fs/cgroup/memory/a/b"),
    ],
)
def test_v1_paths(wanted: str, memory: str) -> None:
    paths = dict(cgroup_paths(parse_layout(V1_MOUNTS, V1_SELF, ""), wanted, "c1"))
    assert paths["memory"] == memory


def test_v2_relative_path_lies_beside_the_caller() -> None:
    layout = parse_layout(V2_MOUNTS, "0::/user.slice/session\n", "")
    assert cgroup_paths(layout, "", "c1") == (("", "/sys/fs/cgroup/user.slice/c1"),)
    assert cgroup_paths(layout, "/k/c1", "c1") == (("", "/sys/fs/cgroup/k/c1"),)


@pytest.mark.parametrize("wanted", ["/", "/..", "..", ".", "/a/.."])
def test_root_belongs_to_everybody(wanted: str) -> None:
    with pytest.raises(CgroupFault, match="is the root of the hierarchy"):
        cgroup_paths(parse_layout(V2_MOUNTS, "0::/a/b\n", ""), wanted, "c1")


def test_systemd_form_is_a_path_without_systemd() -> None:
    layout = parse_layout(V2_MOUNTS, "0::/\n", "")
    assert dict(cgroup_paths(layout, "system.slice:wherry:c1", "c1"))[""].endswith("/system.slice:wherry:c1")


def test_sub_cgroup() -> None:
    paths = (("cpu,cpuacct", "/c/x"), ("memory", "/m/x"))
    assert sub_paths(paths, "a/b") == (("cpu,cpuacct", "/c/x/a/b"), ("memory", "/m/x/a/b"))
    assert sub_paths(paths, "/") == paths
    assert sub_paths(paths, "cpu:b") == (("cpu,cpuacct", "/c/x/b"), ("memory", "/m/x"))
    assert sub_paths(paths, "cpu:b\nmemory:c") == (("cpu,cpuacct", "/c/x/b"), ("memory", "/m/x/c"))
    with pytest.raises(CgroupFault, match="unknown controller pids"):
        sub_paths(paths, "pids:b")


@pytest.mark.parametrize("wanted", ["..", "a/../..", "/../b", "cpu:../b", "cpu:a\nmemory:.."])
def test_a_sub_cgroup_never_climbs(wanted: str) -> None:
    with pytest.raises(CgroupFault, match="bad sub cgroup path"):
        sub_paths((("cpu,cpuacct", "/c/x"), ("memory", "/m/x")), wanted)


def test_clean_never_climbs() -> None:
    assert clean("../a") == "a"
    assert clean("/a/../../b") == "/b"
