from __future__ import annotations

from dataclasses import replace

import pytest

from shim.container.spec.build import build, build_spec
from shim.container.spec.host import CgroupLayout, DeviceNode, HostSources
from shim.container.spec.inputs import SpecSettings
from shim.container.spec.paths import cgroups_path, container_log_path
from shim.errors import InvalidArgument


def limits(kit, asked, **changes):
    built = build(kit.inputs({"linux": {"resources": asked}}, **changes))
    return {key: value for key, value in built.config["linux"]["resources"].items() if key != "devices"}, built


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, {}),
        (
            {"cpuPeriod": 100000, "cpuQuota": 50000, "cpuShares": 512, "cpusetCpus": "0-1,3", "cpusetMems": "0"},
            {"cpu": {"period": 100000, "quota": 50000, "shares": 512, "cpus": "0-1,3", "mems": "0"}},
        ),
        ({"cpuQuota": -1}, {"cpu": {"quota": -1}}),
        ({"memoryLimitInBytes": 4096}, {"memory": {"limit": 4096, "swap": 4096}}),
        ({"memoryLimitInBytes": 4096, "memorySwapLimitInBytes": 8192}, {"memory": {"limit": 4096, "swap": 8192}}),
        ({"memoryLimitInBytes": 4096, "memorySwapLimitInBytes": -1}, {"memory": {"limit": 4096, "swap": -1}}),
        ({"unified": {"memory.high": "1", "cpu.idle": "1"}}, {"unified": {"memory.high": "1", "cpu.idle": "1"}}),
    ],
)
def test_resources(kit, asked, expected):
    assert limits(kit, asked)[0] == expected


def test_without_a_swap_controller(kit):
    host = replace(kit.HOST, swap_controller=False)
    asked = {"memoryLimitInBytes": 4096, "memorySwapLimitInBytes": 8192}
    assert limits(kit, asked, host=host)[0] == {"memory": {"limit": 4096}}


def test_huge_pages(kit):
    asked = {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}, {"pageSize": "1GB", "limit": 1}]}
    resources, _ = limits(kit, asked, host=replace(kit.HOST, hugetlb_controller=True))
    assert resources == {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}, {"pageSize": "1GB", "limit": 1}]}
    resources, built = limits(kit, asked)
    assert resources == {}
    assert "hugetlb" in built.notes[0]
    with pytest.raises(InvalidArgument, match="hugetlb"):
        limits(kit, asked, settings=SpecSettings(tolerate_missing_hugetlb=False))


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"cpuPeriod": -1}, "cpu_period"),
        ({"cpuShares": -5}, "cpu_shares"),
        ({"cpusetCpus": "0;rm"}, "cpuset_cpus"),
        ({"cpusetMems": "../x"}, "cpuset_mems"),
        ({"memoryLimitInBytes": -2}, "memory_limit_in_bytes"),
        ({"memoryLimitInBytes": 4096, "memorySwapLimitInBytes": 1024}, "memory_swap_limit_in_bytes"),
        ({"oomScoreAdj": 1001}, "oom_score_adj"),
        ({"unified": {"../memory.high": "1"}}, "unified"),
        ({"unified": {"cgroup": "1"}}, "unified"),
    ],
)
def test_bad_resources(kit, asked, field):
    with pytest.raises(InvalidArgument, match=field):
        limits(kit, asked)


def test_unified_needs_v2(kit):
    with pytest.raises(InvalidArgument, match="cgroup v2"):
        limits(kit, {"unified": {"memory.high": "1"}}, host=replace(kit.HOST, cgroup_layout=CgroupLayout.HYBRID))


def test_oom_score_adj(kit):
    assert "oomScoreAdj" not in build_spec(kit.inputs())["process"]
    assert limits(kit, {"oomScoreAdj": 5})[1].config["process"]["oomScoreAdj"] == 5
    assert limits(kit, {"cpuShares": 5})[1].config["process"]["oomScoreAdj"] == 0
    _, built = limits(kit, {"oomScoreAdj": -998}, host=replace(kit.HOST, oom_score_adj_floor=-100))
    assert built.config["process"]["oomScoreAdj"] == -100
    assert "raised to -100" in built.notes[0]


NULL = DeviceNode(path="", kind="c", major=1, minor=3, uid=7, gid=8)
DISKS = (DeviceNode(path="a", kind="b", major=8, minor=0), DeviceNode(path="sub/b", kind="b", major=8, minor=1))
DENY = {"allow": False, "access": "rwm"}


def devices(kit, asked, nodes, **changes):
    linux = build_spec(kit.inputs({"devices": asked}, sources=HostSources(devices=nodes), **changes))["linux"]
    return linux.get("devices", []), linux["resources"]["devices"]


def test_devices(kit):
    assert devices(kit, [], ()) == ([], [DENY])
    made, rules = devices(kit, [{"hostPath": "/dev/null", "containerPath": "/dev/mine", "permissions": "rw"}], ((NULL,),))
    assert made == [{"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 7, "gid": 8}]
    assert rules == [DENY, {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}]


def test_device_directories_and_names(kit):
    made, rules = devices(kit, [{"hostPath": "/dev/disks", "containerPath": "/dev/d", "permissions": "r"}], (DISKS,))
    assert [device["path"] for device in made] == ["/dev/d/a", "/dev/d/sub/b"]
    assert [rule["minor"] for rule in rules[1:]] == [0, 1]
    made, _ = devices(kit, [{"hostPath": "/dev/null", "permissions": "rwm"}], ((NULL,),))
    assert made[0]["path"] == "/dev/null"


def test_device_ownership(kit):
    asked = {"devices": [{"hostPath": "/dev/null", "permissions": "r"}]}
    asked |= kit.security(runAsUser={"value": 1000}, runAsGroup={"value": 0})
    settings = SpecSettings(device_ownership_from_security_context=True)
    given = kit.inputs(asked, sources=HostSources(devices=((NULL,),)), settings=settings)
    device = build_spec(given)["linux"]["devices"][0]
    assert (device["uid"], device["gid"]) == (1000, 8)


@pytest.mark.parametrize(
    ("device", "field"),
    [
        ({"hostPath": "/dev/null", "permissions": ""}, "permissions"),
        ({"hostPath": "/dev/null", "permissions": "rwx"}, "permissions"),
        ({"hostPath": "dev/null", "permissions": "r"}, "host_path"),
        ({"hostPath": "/dev/null", "containerPath": "x", "permissions": "r"}, "container_path"),
    ],
)
def test_bad_devices(kit, device, field):
    with pytest.raises(InvalidArgument, match=rf"devices\[0\].{field}"):
        devices(kit, [device], ((NULL,),))


@pytest.mark.parametrize(
    ("parent", "own", "expected"),
    [
        ("/kubepods/burstable/pod1", "", "/kubepods/burstable/pod1/ID"),
        ("kubepods//pod1/", "", "kubepods/pod1/ID"),
        ("", "/own", "/own/ID"),
        ("", "", "/wherry-ID"),
        ("kubepods-pod1.slice", "/kubepods.slice/kubepods-pod1.slice/wherry-P.scope",
         "/kubepods.slice/kubepods-pod1.slice/wherry-P.scope/ID"),
    ],
)  # fmt: skip
def test_cgroups_path(kit, parent, own, expected):
    assert cgroups_path(kit.pod(linux={"cgroupParent": parent}), "ID", SpecSettings(pod_cgroup=own)) == expected


@pytest.mark.parametrize("parent", ["/a/../../b", "/a\nb", ".."])
def test_bad_cgroup_parents(kit, parent):
    with pytest.raises(InvalidArgument, match="cgroup_parent"):
        cgroups_path(kit.pod(linux={"cgroupParent": parent}), "ID", SpecSettings())


@pytest.mark.parametrize(
    ("directory", "name", "expected"),
    [
        ("/var/log/pods/p", "c/0.log", "/var/log/pods/p/c/0.log"),
        ("/var/log/pods/p/", "./c/0.log", "/var/log/pods/p/c/0.log"),
        ("", "c/0.log", ""),
        ("/var/log", "", ""),
        ("/", "x", "/x"),
    ],
)
def test_log_path(kit, directory, name, expected):
    assert container_log_path(kit.container(logPath=name), kit.pod(logDirectory=directory)) == expected


@pytest.mark.parametrize(
    ("directory", "name"),
    [("relative", "x"), ("/var/log", "../x"), ("/var/log", "/etc/x"), ("/var/log", "a/../../logs"), ("/var/log", "x\0")],
)
def test_log_path_that_leaves(kit, directory, name):
    with pytest.raises(InvalidArgument, match="log_"):
        container_log_path(kit.container(logPath=name), kit.pod(logDirectory=directory))


def test_annotations(kit):
    """CVE-2024-3154: what an orchestrator's user annotates reaches no runtime, systemd's properties least of all."""
    annotations = build_spec(
        kit.inputs(
            {
                "annotations": {"org.systemd.property.ExecStartPre": "x"},
                "logPath": "0.log",
                "metadata": {"name": "app", "attempt": 2},
            },
            {"logDirectory": "/var/log", "annotations": {"run.oci.x": "y"}},
        )
    )["annotations"]
    assert annotations == {
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": "app",
        "io.kubernetes.cri.image-name": "docker.io/library/busybox:latest",
        "io.kubernetes.cri.sandbox-id": "p" * 64,
        "io.kubernetes.cri.sandbox-name": "pod",
        "io.kubernetes.cri.sandbox-namespace": "default",
        "io.kubernetes.cri.sandbox-uid": "u-1",
        "io.wherry.container-attempt": "2",
        "io.wherry.log-path": "/var/log/0.log",
    }
