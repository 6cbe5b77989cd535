"""What several plugins ask of one container: who wins, who may not, and what the next one sees."""

from __future__ import annotations

import pytest
from google.protobuf import json_format

from shim.gen.nri.v1alpha1 import api_pb2 as nri
from shim.nri.adjust import Creation
from shim.nri.limits import Updates
from shim.nri.owners import Conflict, Owners


def container(**fields) -> nri.Container:
    return json_format.ParseDict({"id": "c1", **fields}, nri.Container())


def answer(**adjust) -> nri.CreateContainerResponse:
    return json_format.ParseDict({"adjust": adjust}, nri.CreateContainerResponse())


def both(first: dict, second: dict, **fields) -> Creation:
    creation = Creation(container(**fields))
    creation.take(answer(**first), "10-a")
    creation.take(answer(**second), "20-b")
    return creation


CONFLICTS = {
    "Annotations k": {"annotations": {"k": "v"}},
    "Mounts /m": {"mounts": [{"destination": "/m", "source": "/s"}]},
    "Env E": {"env": [{"key": "E", "value": "1"}]},
    "Args": {"args": ["x"]},
    "CdiDevices v.com/c=d": {"CDIDevices": [{"name": "v.com/c=d"}]},
    "Rlimits RLIMIT_NOFILE": {"rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1, "soft": 1}]},
    "Devices /dev/x": {"linux": {"devices": [{"path": "/dev/x", "type": "c"}]}},
    "CgroupsPath": {"linux": {"cgroupsPath": "/x"}},
    "OomScoreAdj": {"linux": {"oomScoreAdj": {"value": 5}}},
    "IoPriority": {"linux": {"ioPriority": {"ioClass": "IOPRIO_CLASS_BE"}}},
    "SeccompPolicy": {"linux": {"seccompPolicy": {"defaultAction": "SCMP_ACT_ALLOW"}}},
    "Namespace network": {"linux": {"namespaces": [{"type": "network"}]}},
    "Sysctl a.b": {"linux": {"sysctl": {"a.b": "1"}}},
    "LinuxNetDevices eth1": {"linux": {"netDevices": {"eth1": {"name": "n"}}}},
    "LinuxSched": {"linux": {"scheduler": {"policy": "SCHED_FIFO"}}},
    "RdtClosID": {"linux": {"rdt": {"closId": {"value": "x"}}}},
    "RdtSchemata": {"linux": {"rdt": {"schemata": {"value": ["x"]}}}},
    "RdtEnableMonitoring": {"linux": {"rdt": {"enableMonitoring": {"value": False}}}},
    "MemoryPolicy": {"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"}}},
    "MemLimit": {"linux": {"resources": {"memory": {"limit": {"value": "0"}}}}},
    "MemSwappiness": {"linux": {"resources": {"memory": {"swappiness": {"value": "1"}}}}},
    "CPUShares": {"linux": {"resources": {"cpu": {"shares": {"value": "2"}}}}},
    "CPUSetCPUs": {"linux": {"resources": {"cpu": {"cpus": "0"}}}},
    "HugepageLimits 2MB": {"linux": {"resources": {"hugepageLimits": [{"pageSize": "2MB", "limit": "1"}]}}},
    "CgroupsUnified memory.high": {"linux": {"resources": {"unified": {"memory.high": "1"}}}},
    "BlockioClass": {"linux": {"resources": {"blockioClass": {"value": "x"}}}},
    "RdtClass": {"linux": {"resources": {"rdtClass": {"value": "x"}}}},
    "PidsLimit": {"linux": {"resources": {"pids": {"limit": 1}}}},
}


@pytest.mark.parametrize("what", CONFLICTS)
def test_nobody_overwrites_another(what: str) -> None:
    with pytest.raises(Conflict) as caught:
        both(CONFLICTS[what], CONFLICTS[what])
    assert str(caught.value) == f"plugins '20-b' and '10-a' both want to set {what}"


@pytest.mark.parametrize("what", CONFLICTS)
def test_alone_it_is_taken_as_it_is(what: str) -> None:
    creation = Creation(container())
    creation.take(answer(**CONFLICTS[what]), "10-a")
    assert json_format.MessageToDict(creation.asked) == json_format.MessageToDict(answer(**CONFLICTS[what]).adjust)
    owners = creation.owners.message().owners["c1"]
    name, _, key = what.partition(" ")
    field = nri.Field.Value(name)
    assert (owners.compound[field].owners[key] if key else owners.simple[field]) == "10-a"


def test_what_is_removed_first_may_be_set() -> None:
    creation = both(
        {"annotations": {"k": "a"}, "env": [{"key": "E", "value": "a"}], "args": ["a"]},
        {"annotations": {"-k": "", "k": "b"}, "env": [{"key": "-E"}, {"key": "E", "value": "b"}], "args": ["", "b"]},
    )
    assert dict(creation.asked.annotations) == {"-k": "", "k": "b"}
    assert [(pair.key, pair.value) for pair in creation.asked.env] == [("-E", ""), ("E", "b")]
    assert list(creation.asked.args) == ["b"]
    with pytest.raises(Conflict):  # it is the second one's now
        creation.take(answer(annotations={"k": "c"}), "30-c")


def test_a_removal_alone_takes_back_what_another_added() -> None:
    creation = both(
        {
            "mounts": [{"destination": "/m", "source": "/a"}, {"destination": "/n"}],
            "linux": {"devices": [{"path": "/dev/a", "type": "c"}], "sysctl": {"x.y": "1"}, "netDevices": {"e": {"name": "n"}}},
        },
        {
            "mounts": [{"destination": "-/m"}],
            "linux": {"devices": [{"path": "-/dev/a"}], "sysctl": {"-x.y": ""}, "netDevices": {"-e": {}}},
        },
    )
    assert [mount.destination for mount in creation.asked.mounts] == ["/n", "-/m"]
    assert [device.path for device in creation.asked.linux.devices] == ["-/dev/a"]
    assert dict(creation.asked.linux.sysctl) == {"-x.y": ""}
    assert list(creation.asked.linux.net_devices) == ["-e"]
    assert [mount.destination for mount in creation.seen.mounts] == ["/n"]
    assert not creation.seen.linux.devices
    assert not creation.seen.linux.sysctl


def test_the_next_plugin_sees_the_changes() -> None:
    creation = Creation(
        container(
            env=["A=1", "B=2", "C"],
            args=["sh"],
            annotations={"x": "1"},
            mounts=[{"destination": "/m", "source": "/old"}],
            linux={"namespaces": [{"type": "network", "path": "/p"}, {"type": "pid"}], "resources": {"cpu": {"cpus": "0-3"}}},
        )
    )
    creation.take(
        answer(
            env=[{"key": "-A"}, {"key": "B", "value": "3"}, {"key": "D", "value": "a=b"}],
            args=["other"],
            annotations={"-x": "", "y": "2"},
            mounts=[{"destination": "/m", "source": "/new"}],
            rlimits=[{"type": "RLIMIT_CORE", "hard": "1", "soft": "0"}],
            hooks={"poststop": [{"path": "/bin/true"}]},
            linux={
                "namespaces": [{"type": "-network"}, {"type": "pid", "path": "/q"}],
                "resources": {"cpu": {"cpus": "1", "quota": {"value": "-1"}}},
                "cgroupsPath": "/new",
            },
        ),
        "10-a",
    )
    seen = creation.seen
    assert list(seen.env) == ["C=", "B=3", "D=a=b"]
    assert list(seen.args) == ["other"]
    assert dict(seen.annotations) == {"y": "2"}
    assert [mount.source for mount in seen.mounts] == ["/new"]
    assert [(one.type, one.path) for one in seen.linux.namespaces] == [("pid", "/q")]
    assert (seen.linux.resources.cpu.cpus, seen.linux.resources.cpu.quota.value) == ("1", -1)
    assert (seen.linux.cgroups_path, seen.rlimits[0].type, seen.hooks.poststop[0].path) == ("/new", "RLIMIT_CORE", "/bin/true")


def test_hooks_add_up() -> None:
    creation = both({"hooks": {"prestart": [{"path": "/a"}]}}, {"hooks": {"prestart": [{"path": "/b"}]}})
    assert [hook.path for hook in creation.asked.hooks.prestart] == ["/a", "/b"]
    assert creation.owners.message().owners["c1"].simple[nri.OciHooks] == "10-a,20-b"


def test_rdt_is_taken_over_by_removal() -> None:
    creation = both(
        {"linux": {"rdt": {"closId": {"value": "a"}, "schemata": {"value": ["s"]}}}},
        {"linux": {"rdt": {"remove": True, "enableMonitoring": {"value": True}}}},
    )
    rdt = creation.asked.linux.rdt
    assert (rdt.remove, rdt.HasField("clos_id"), rdt.enable_monitoring.value) == (True, False, True)


def update(key: str, *, ignore: bool = False, **resources) -> nri.ContainerUpdate:
    fields = {"containerId": key, "ignoreFailure": ignore, "linux": {"resources": resources}}
    return json_format.ParseDict(fields, nri.ContainerUpdate())


def test_updates_of_one_container_become_one() -> None:
    updates = Updates(Owners(), creating="new")
    updates.take([update("x", cpu={"shares": {"value": "5"}}), update("y", ignore=True, cpu={"cpus": "1"})], "10-a")
    updates.take([update("x", memory={"limit": {"value": "7"}}), update("y", cpu={"mems": "0"})], "20-b")
    x, y = updates.others
    assert (x.linux.resources.cpu.shares.value, x.linux.resources.memory.limit.value) == (5, 7)
    assert (y.linux.resources.cpu.cpus, y.linux.resources.cpu.mems, y.ignore_failure) == ("1", "0", False)
    with pytest.raises(Conflict, match="CPUShares"):
        updates.take([update("x", cpu={"shares": {"value": "6"}})], "30-c")
    updates.take([update("x", ignore=True, cpu={"shares": {"value": "6"}})], "30-c")
    assert updates.others[0].linux.resources.cpu.shares.value == 5
    with pytest.raises(Conflict, match="being created"):
        updates.take([update("new")], "30-c")


def test_the_update_under_way_is_changed_not_replaced() -> None:
    asked = json_format.ParseDict({"cpu": {"shares": {"value": "1"}, "cpus": "0"}}, nri.LinuxResources())
    updates = Updates(Owners(), own=("me", asked))
    assert updates.own == asked
    updates.take([update("me", cpu={"cpus": "1"}), update("other", cpu={"cpus": "2"})], "10-a")
    assert (updates.own.cpu.shares.value, updates.own.cpu.cpus) == (1, "1")
    assert [one.container_id for one in updates.others] == ["other"]
