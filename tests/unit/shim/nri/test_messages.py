"""Pods and containers as plugins see them, and limits from one language into another."""

from __future__ import annotations

from google.protobuf import json_format

from shim.gen.nri.v1alpha1 import api_pb2 as nri
from shim.gen.runtime.v1 import api_pb2 as cri
from shim.nri.messages import container_message, pod_message
from shim.nri.resources import from_cri, from_oci, to_cri
from shim.store.containers import Container, ContainerMeta, ContainerStatus
from shim.store.pods import Pod, PodMeta, PodStatus
from tests.unit.shim.fakes import container_config, pod_config

SPEC = {
    "process": {
        "args": ["sh"],
        "env": ["A=1", "B=\udcff"],
        "user": {"uid": 1, "gid": 2, "additionalGids": [3]},
        "oomScoreAdj": 0,
        "rlimits": [{"type": "RLIMIT_CORE", "hard": 2, "soft": 1}],
        "ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 1},
        "scheduler": {"policy": "SCHED_FIFO", "priority": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
    },
    "annotations": {"x": "spec"},
    "mounts": [{"destination": "/m", "type": "bind", "source": "/s", "options": ["rbind"]}],
    "hooks": {"createRuntime": [{"path": "/h", "timeout": 3}], "poststop": [{"path": "/p", "args": ["p"], "env": ["E=1"]}]},
    "linux": {
        "namespaces": [{"type": "pid"}, {"type": "network", "path": "/n"}],
        "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0, "uid": 0}],
        "resources": {"cpu": {"shares": 2, "cpus": "0"}, "pids": {"limit": 5}, "unified": {"a.b": "c"}},
        "cgroupsPath": "/c",
        "sysctl": {"a": "b"},
        "netDevices": {"eth1": {"name": "in"}},
        "intelRdt": {"closID": "x", "schemata": ["s"], "enableMonitoring": False},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
                {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2},
            ],
        },
    },
}


def container(**status) -> Container:
    config = container_config(labels={"l": "1"}, annotations={"y": "cri"})
    config.linux.security_context.seccomp.profile_type = cri.SecurityProfile.Localhost
    config.linux.security_context.seccomp.localhost_ref = "localhost//p.json"
    meta = ContainerMeta(id="c", name="n", pod_id="p", created_at=1, image_id="sha256:1", handler="")
    return Container(meta=meta, config=config, status=ContainerStatus(**status))


def test_a_container() -> None:
    message = container_message(container(created_at=5, started_at=6, pid=7), SPEC, None)
    found = json_format.MessageToDict(message, preserving_proto_field_name=True)
    linux = found.pop("linux")
    assert found == {
        "id": "c",
        "pod_sandbox_id": "p",
        "name": "main",
        "state": "CONTAINER_RUNNING",
        "labels": {"l": "1"},
        "annotations": {"x": "spec", "y": "cri"},
        "args": ["sh"],
        "env": ["A=1", "B=\N{REPLACEMENT CHARACTER}"],
        "mounts": [{"destination": "/m", "type": "bind", "source": "/s", "options": ["rbind"]}],
        "hooks": {
            "create_runtime": [{"path": "/h", "timeout": {"value": "3"}}],
            "poststop": [{"path": "/p", "args": ["p"], "env": ["E=1"]}],
        },
        "pid": 7,
        "rlimits": [{"type": "RLIMIT_CORE", "hard": "2", "soft": "1"}],
        "created_at": "5",
        "started_at": "6",
        "user": {"uid": 1, "gid": 2, "additional_gids": [3]},
        "image": {"name": "busybox", "config_digest": "sha256:1"},
    }
    assert linux["oom_score_adj"] == {}
    assert linux["io_priority"] == {"io_class": "IOPRIO_CLASS_RT", "priority": 1}
    assert linux["scheduler"] == {"policy": "SCHED_FIFO", "priority": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    assert linux["rdt"] == {"clos_id": {"value": "x"}, "schemata": {"value": ["s"]}, "enable_monitoring": {}}
    assert linux["namespaces"] == [{"type": "pid"}, {"type": "network", "path": "/n"}]
    assert linux["devices"] == [{"path": "/dev/x", "type": "c", "major": "1", "minor": "3", "file_mode": {}, "uid": {}}]
    assert linux["seccomp_profile"] == {"profile_type": "LOCALHOST", "localhost_ref": "localhost//p.json"}
    assert linux["net_devices"] == {"eth1": {"name": "in"}}
    policy = linux["seccomp_policy"]
    assert (policy["default_action"], policy["default_errno"]) == ("SCMP_ACT_ERRNO", {"value": 1})
    assert policy["syscalls"][0]["args"] == [{"value": "1", "op": "SCMP_CMP_EQ"}]
    assert policy["syscalls"][1]["errno_ret"] == {"value": 2}


def test_an_ended_container_has_no_pid() -> None:
    message = container_message(
        container(created_at=5, started_at=6, finished_at=7, pid=7, exit_code=3, reason="Error"), {}, None
    )
    assert (message.state, message.pid, message.exit_code, message.status_reason) == (nri.CONTAINER_STOPPED, 0, 3, "Error")


def test_a_pod() -> None:
    config = pod_config(labels={"l": "1"}, annotations={"a": "b"})
    config.linux.overhead.cpu_shares = 5
    config.linux.cgroup_parent = "/kube"
    meta = PodMeta(id="p", name="n", handler="runc", created_at=1, netns="", cgroup="")
    status = PodStatus(ready_at=1, ips=("10.1.0.2", "fd00::2"), namespaces={"network": "/n", "shm": "/s"})
    message = pod_message(Pod(meta=meta, config=config, status=status))
    assert (message.name, message.uid, message.namespace, message.runtime_handler) == ("web", "u1", "default", "runc")
    assert list(message.ips) == ["10.1.0.2", "fd00::2"]
    assert [(one.type, one.path) for one in message.linux.namespaces] == [("network", "/n")]
    assert (message.linux.cgroup_parent, message.linux.pod_overhead.cpu.shares.value) == ("/kube", 5)
    assert message.annotations["a"] == "b"
    assert message.annotations["io.kubernetes.cri.sandbox-uid"] == "u1"


def test_limits_there_and_back() -> None:
    asked = cri.LinuxContainerResources(
        cpu_shares=1,
        cpu_quota=-1,
        cpu_period=3,
        cpuset_cpus="0",
        cpuset_mems="1",
        memory_limit_in_bytes=4,
        memory_swap_limit_in_bytes=5,
        unified={"a.b": "c"},
    )
    asked.hugepage_limits.add(page_size="2MB", limit=6)
    assert to_cri(from_cri(asked)) == (asked, {})


def test_limits_that_the_cri_has_no_field_for() -> None:
    given = {"memory": {"reservation": 1, "limit": 2}, "cpu": {"realtimePeriod": 3}, "pids": {"limit": 4}}
    found, extra = to_cri(from_oci(given))
    assert found == cri.LinuxContainerResources(memory_limit_in_bytes=2)
    assert extra == {"memory": {"reservation": 1}, "cpu": {"realtimePeriod": 3}, "pids": {"limit": 4}}
