"""Where a pod's cgroup lies with both drivers."""

from __future__ import annotations

import pytest

from shim.config import CgroupConfig
from shim.errors import InvalidArgument
from shim.gen.runtime.v1.api_pb2 import LinuxPodSandboxConfig, PodSandboxConfig
from shim.pod.cgroup import own_cgroup, pod_cgroup, scope_of

SYSTEMD = CgroupConfig(driver="systemd", slice="machine.slice")


def pod(parent: str = "") -> PodSandboxConfig:
    return PodSandboxConfig(linux=LinuxPodSandboxConfig(cgroup_parent=parent))


@pytest.mark.parametrize(
    ("config", "parent", "own", "holds"),
    [
        (CgroupConfig(), "", "/wherry/P", "/wherry/P"),
        (CgroupConfig(), "/kubepods/pod1", "", "/kubepods/pod1"),
        (SYSTEMD, "", "/machine.slice/wherry-P.scope", "/machine.slice/wherry-P.scope"),
        (SYSTEMD, "/a.slice/a-b.slice", "/a.slice/a-b.slice/wherry-P.scope", "/a.slice/a-b.slice/wherry-P.scope"),
        (SYSTEMD, "a-b.slice", "/a.slice/a-b.slice/wherry-P.scope", "/a.slice/a-b.slice/wherry-P.scope"),
    ],
)
def test_pod_cgroups(config: CgroupConfig, parent: str, own: str, holds: str) -> None:
    assert own_cgroup(config, pod(parent), "P") == own
    assert pod_cgroup(own, pod(parent)) == holds


def test_the_scope_of_a_pod() -> None:
    assert scope_of(CgroupConfig(), pod("/a"), "P") == ""
    assert scope_of(SYSTEMD, pod("/a.slice/a-b.slice"), "P") == "a-b.slice:wherry:P"


@pytest.mark.parametrize("parent", ["..", "/kubepods", "a:b.slice", "a\nb.slice", "a--b.slice", ".slice", "a.slice/../b.slice"])
def test_parents_that_are_no_slice(parent: str) -> None:
    with pytest.raises(InvalidArgument, match="cgroup_parent"):
        own_cgroup(SYSTEMD, pod(parent), "P")
