"""Adjustments on a config.json, one by one."""

from __future__ import annotations

import copy

import pytest
from google.protobuf import json_format

from shim.errors import FailedPrecondition, InvalidArgument
from shim.gen.nri.v1alpha1 import api_pb2 as nri
from shim.nri.apply import Surroundings, apply

SPEC = {
    "process": {
        "args": ["sh"],
        "env": ["PATH=/bin", "A=1"],
        "oomScoreAdj": 100,
        "rlimits": [{"type": "RLIMIT_CORE", "hard": 5, "soft": 5}],
    },
    "annotations": {"x": "1"},
    "mounts": [{"destination": "/proc", "type": "proc"}, {"destination": "/a/b", "type": "bind", "source": "/old"}],
    "linux": {
        "namespaces": [{"type": "network", "path": "/n"}, {"type": "mount"}],
        "resources": {"memory": {"limit": 10}, "cpu": {"shares": 2}, "devices": [{"allow": False, "access": "rwm"}]},
        "cgroupsPath": "/p/c",
    },
}
MOUNTINFO = "1 0 8:1 / / rw shared:1 - ext4 /dev/sda rw\n2 1 8:2 / /own rw - ext4 /dev/sdb rw\n"


def adjusted(host: Surroundings | None = None, **adjust) -> dict:
    spec = copy.deepcopy(SPEC)
    known = host or Surroundings(inject=lambda spec, names: spec.update(cdi=list(names)), mountinfo=lambda: MOUNTINFO)
    apply(spec, json_format.ParseDict(adjust, nri.ContainerAdjustment()), known)
    return spec


def linux(**fields) -> dict:
    return adjusted(linux=fields)["linux"]


def resources(**fields) -> dict:
    return linux(resources=fields)["resources"]


def test_nothing_asked_nothing_changed() -> None:
    assert adjusted() == SPEC


def test_process() -> None:
    spec = adjusted(
        args=["/bin/x", "y"],
        env=[{"key": "-PATH"}, {"key": "A", "value": "2"}, {"key": "B", "value": "3"}],
        annotations={"-x": "", "y": "2"},
        rlimits=[{"type": "RLIMIT_CORE", "hard": "7", "soft": "6"}, {"type": "RLIMIT_NOFILE", "hard": "9", "soft": "8"}],
        linux={
            "oomScoreAdj": {"value": -5},
            "ioPriority": {"ioClass": "IOPRIO_CLASS_BE", "priority": 4},
            "scheduler": {"policy": "SCHED_DEADLINE", "runtime": "1", "deadline": "2", "period": "3", "flags": [0]},
        },
    )
    process = spec["process"]
    assert (process["args"], process["env"]) == (["/bin/x", "y"], ["A=2", "B=3"])
    assert spec["annotations"] == {"y": "2"}
    assert process["rlimits"] == [
        {"type": "RLIMIT_CORE", "hard": 7, "soft": 6},
        {"type": "RLIMIT_NOFILE", "hard": 9, "soft": 8},
    ]
    assert process["oomScoreAdj"] == -5
    assert process["ioPriority"] == {"class": "IOPRIO_CLASS_BE", "priority": 4}
    assert process["scheduler"] == {
        "policy": "SCHED_DEADLINE",
        "runtime": 1,
        "deadline": 2,
        "period": 3,
        "flags": ["SCHED_FLAG_RESET_ON_FORK"],
    }


def test_oom_score_adj_stays_above_what_the_daemon_may_give() -> None:
    host = Surroundings(inject=lambda *_: None, mountinfo=str, oom_score_adj_floor=-1)
    assert adjusted(host, linux={"oomScoreAdj": {"value": -5}})["process"]["oomScoreAdj"] == -1


def test_no_priority_and_no_scheduler_at_all() -> None:
    process = adjusted(linux={"ioPriority": {"ioClass": "IOPRIO_CLASS_NONE"}, "scheduler": {"policy": "SCHED_NONE"}})["process"]
    assert not {"ioPriority", "scheduler"} & set(process)


def test_hooks_and_cdi() -> None:
    spec = adjusted(
        hooks={
            "createRuntime": [{"path": "/h", "args": ["h"], "env": ["E=1"], "timeout": {"value": 3}}],
            "poststop": [{"path": "/p"}],
        },
        CDIDevices=[{"name": "v.com/c=d"}],
    )
    assert spec["hooks"] == {
        "createRuntime": [{"path": "/h", "args": ["h"], "env": ["E=1"], "timeout": 3}],
        "poststop": [{"path": "/p", "args": [], "env": []}],
    }
    assert spec["cdi"] == ["v.com/c=d"]


def test_devices() -> None:
    null = {"path": "/dev/n", "type": "c", "major": "1", "minor": "3", "fileMode": {"value": 438}, "uid": {"value": 0}}
    found = linux(devices=[null, {"path": "/dev/disk", "type": "b", "major": "8"}])
    assert found["devices"] == [
        {"path": "/dev/n", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0},
        {"path": "/dev/disk", "type": "b", "major": 8, "minor": 0},
    ]
    assert [rule["access"] for rule in found["resources"]["devices"]] == ["rwm", "rw", "rwm"]
    spec = copy.deepcopy(SPEC)
    spec["linux"]["devices"] = [{"path": "/dev/n"}, {"path": "/dev/m"}]
    gone = nri.ContainerAdjustment(linux=nri.LinuxContainerAdjustment(devices=[nri.LinuxDevice(path="-/dev/n")]))
    apply(spec, gone, Surroundings(inject=lambda *_: None, mountinfo=str))
    assert spec["linux"]["devices"] == [{"path": "/dev/m"}]


def test_kernel() -> None:
    found = linux(
        cgroupsPath="/q",
        namespaces=[{"type": "-network"}, {"type": "ipc", "path": "/i"}, {"type": "cgroup"}],
        sysctl={"net.a": "1"},
        netDevices={"eth1": {"name": "in"}, "eth2": {}},
        memoryPolicy={"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
        seccompPolicy={
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrno": {"value": 38},
            "architectures": ["SCMP_ARCH_X86_64"],
            "listenerPath": "/l",
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": "2", "op": "SCMP_CMP_EQ"}]},
                {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": {"value": 1}},
            ],
        },
    )
    assert found["cgroupsPath"] == "/q"
    assert found["namespaces"] == [{"type": "mount"}, {"type": "ipc", "path": "/i"}, {"type": "cgroup"}]
    assert found["sysctl"] == {"net.a": "1"}
    assert found["netDevices"] == {"eth1": {"name": "in"}, "eth2": {}}
    assert found["memoryPolicy"] == {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}
    assert found["seccomp"] == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64"],
        "listenerPath": "/l",
        "syscalls": [
            {
                "names": ["read"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 1, "value": 2, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
            },
            {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        ],
    }


def test_resources() -> None:
    found = resources(
        memory={"limit": {"value": "20"}, "disableOomKiller": {"value": True}},
        cpu={"quota": {"value": "-1"}, "cpus": "0"},
        hugepageLimits=[{"pageSize": "2MB", "limit": "1"}],
        unified={"memory.high": "5"},
        pids={"limit": 3},
        devices=[{"allow": True, "type": "c", "major": {"value": "5"}, "access": "r"}],
    )
    assert found == {
        "memory": {"limit": 20, "disableOOMKiller": True},
        "cpu": {"shares": 2, "quota": -1, "cpus": "0"},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
        "unified": {"memory.high": "5"},
        "pids": {"limit": 3},
        "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "access": "r", "major": 5}],
    }


def test_a_new_memory_limit_bounds_swap_too() -> None:
    host = Surroundings(inject=lambda *_: None, mountinfo=str, swap=True)
    asked = {"resources": {"memory": {"limit": {"value": "20"}}}}
    assert adjusted(host, linux=asked)["linux"]["resources"]["memory"] == {"limit": 20, "swap": 20}


def test_classes() -> None:
    assert linux(resources={"rdtClass": {"value": "gold"}})["intelRdt"] == {"closID": "gold"}
    assert "intelRdt" not in linux(resources={"rdtClass": {"value": ""}})
    found = linux(
        rdt={"remove": True, "closId": {"value": "x"}, "schemata": {"value": ["s"]}, "enableMonitoring": {"value": True}}
    )
    assert found["intelRdt"] == {"closID": "x", "schemata": ["s"], "enableMonitoring": True}
    assert resources(blockioClass={"value": ""}) == SPEC["linux"]["resources"]
    with pytest.raises(InvalidArgument, match="'fast' is not known"):
        resources(blockioClass={"value": "fast"})


def test_mounts_are_replaced_removed_and_sorted() -> None:
    spec = adjusted(
        mounts=[
            {"destination": "/a/b", "type": "bind", "source": "/new", "options": ["rbind", "rprivate"]},
            {"destination": "-/proc"},
            {"destination": "/a", "type": "tmpfs", "source": "tmpfs"},
        ]
    )
    assert spec["mounts"] == [
        {"destination": "/a", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/a/b", "type": "bind", "source": "/new", "options": ["rbind", "rprivate"]},
    ]


@pytest.mark.parametrize("word", ["rshared", "rslave"])
def test_propagation(word: str) -> None:
    mount = {"destination": "/x", "type": "bind", "source": "/shared/dir", "options": ["rbind", word]}
    assert adjusted(mounts=[mount])["linux"]["rootfsPropagation"] == word
    with pytest.raises(FailedPrecondition, match=f"wants {word}, but /own, which holds its source, is private"):
        adjusted(mounts=[mount | {"source": "/own/dir"}])
