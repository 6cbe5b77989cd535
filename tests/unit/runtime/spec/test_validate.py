"""The validator: parts that contradict each other, or mean nothing, are named."""

from __future__ import annotations

import pytest

from runtime.errors import SpecFault
from runtime.spec.parse import parse_spec
from runtime.spec.resources import Memory, Resources
from runtime.spec.validate import validate
from runtime.spec.validate_resources import validate_resources

from .test_parse import FULL, with_change


@pytest.mark.parametrize(
    ("pointer", "value", "message"),
    [
        ("/ociVersion", "2.0.0", "is not supported"),
        ("/ociVersion", "1.0", "is not a version"),
        ("/process", None, "is missing"),
        ("/root", None, "is missing"),
        ("/process/args", [], "needs at least the program's name"),
        ("/process/env", ["A=1", "NAME"], "missing '='"),
        ("/process/env", [""], "missing '='"),
        ("/process/env", ["=value"], "name cannot be empty"),
        ("/process/cwd", "", "is missing"),
        ("/process/cwd", "tmp", "is not an absolute path"),
        ("/process/user/umask", 512, "is more than"),
        ("/process/oomScoreAdj", 1001, "is not between -1000 and 1000"),
        ("/process/rlimits/0/type", "RLIMIT_X", "is not a resource limit"),
        ("/process/rlimits/0", {"type": "RLIMIT_CPU", "soft": 2, "hard": 1}, "is more than the hard limit"),
        ("/process/scheduler/policy", "SCHED_X", "is not a scheduling policy"),
        ("/process/scheduler/priority", 0, "is not between 1 and 99"),
        ("/process/scheduler/deadline", 5, "needs the policy SCHED_DEADLINE"),
        ("/process/scheduler", {"policy": "SCHED_DEADLINE", "deadline": 9, "period": 9}, "requires `runtime`"),
        ("/process/scheduler", {"policy": "SCHED_DEADLINE", "runtime": 9999}, "requires `deadline`"),
        ("/process/scheduler", {"policy": "SCHED_DEADLINE", "runtime": 9, "deadline": 9}, "must be between 1024"),
        ("/process/scheduler", {"policy": "SCHED_DEADLINE", "runtime": 9999, "deadline": 1}, "must be <= deadline"),
        ("/linux/memoryPolicy", {"mode": ""}, "invalid memory policy mode"),
        ("/linux/memoryPolicy", {"mode": "MPOL_DEFAULT", "nodes": "0-7"}, "mode requires 0 nodes but got 8"),
        ("/process/ioPriority/class", "X", "is not an I/O class"),
        ("/process/ioPriority/priority", 8, "is not between 0 and 7"),
        ("/process/execCPUAffinity/final", "3-1", "is not a list"),
        ("/process/execCPUAffinity/initial", "0-999999", "is not a list"),
        ("/linux/memoryPolicy", {"mode": "MPOL_BIND", "nodes": "0-999999"}, 'nodes: "0-999999" is not a list'),
        ("/linux/resources/cpu/cpus", "8192", "is not a list"),
        ("/linux/resources/cpu/mems", "0," * 30000 + "0", "is not a list"),
        ("/hostname", "x", "needs a uts namespace"),
        ("/hooks/poststop/0/path", "true", "is not an absolute path"),
        ("/mounts/0/uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}], "is missing beside"),
        ("/linux/namespaces/0/type", "nett", '"nett" is not a namespace type (pid, network, '),
        ("/linux/namespaces/1/type", "mount", "is listed twice"),
        ("/linux/namespaces/3/path", "x", "is not an absolute path"),
        ("/linux/uidMappings", [], "a new user namespace needs it"),
        ("/linux/uidMappings", [{"containerID": 1, "hostID": 1, "size": 9}], "no mapping found for uid 0"),
        ("/linux/gidMappings", [{"containerID": 1, "hostID": 1, "size": 9}], "no mapping found for gid 0"),
        ("/process/user/uid", 2**31, "cannot setuid to unmapped uid"),
        ("/process/user/gid", 2**31, "cannot setgid to unmapped gid"),
        ("/linux/timeOffsets", {"realtime": {"secs": 1}}, "is not a clock"),
        ("/linux/sysctl", {"kernel.hostname": "x"}, "conflicts with /hostname"),
        ("/linux/sysctl", {"vm.swappiness": "1"}, "would change the host"),
        ("/linux/sysctl", {"kernel.shmmax": "1"}, "needs a ipc namespace"),
        ("/process/user/additionalGids", list(range(65537)), "more than 65536"),
        ("/mounts", [{"destination": "/x", "type": "tmpfs"}] * 8193, "has more than 8192 mounts"),
        ("/linux/resources/devices", [{"allow": True}] * 8193, "has more than 8192 rules"),
        ("/linux/netDevices", {"../x": {}}, "is not the name of a network device"),
        ("/linux/netDevices", {"x": {"name": "a" * 16}}, "is not the name of a network device"),
        ("/linux/devices/0/type", "x", "is not a device type"),
        ("/linux/devices/0/path", "dev", "is not an absolute path"),
        ("/linux/devices/0/major", 2**31, "is not a device number"),
        ("/linux/devices/0/minor", 2**31, "is not a device number"),
        ("/linux/rootfsPropagation", "x", "is not a propagation"),
        ("/linux/personality", {"domain": "X"}, "is not a personality"),
        ("/linux/seccomp/defaultAction", "X", "is not a seccomp action"),
        ("/linux/seccomp/defaultAction", "SCMP_ACT_NOTIFY", "cannot be the default"),
        ("/linux/seccomp/architectures", ["X"], "is not an architecture"),
        ("/linux/seccomp/flags", ["X"], "is not a seccomp flag"),
        ("/linux/seccomp/syscalls/0/action", "SCMP_ACT_NOTIFY", "needs it"),
        ("/linux/seccomp/syscalls/0/args/0/op", "EQ", "is not a comparison"),
        ("/linux/resources/devices/0/type", "x", "is not a device type"),
        ("/linux/resources/devices/1/access", "rx", "is not made of r, w and m"),
        ("/linux/resources/memory/swap", 50, "is less than the memory limit"),
        ("/linux/resources/memory/reservation", 150, "is more than the memory limit"),
        ("/linux/resources/cpu/cpus", "0-", "is not a list"),
        ("/linux/resources/cpu/idle", 2, "is not 0 or 1"),
        ("/linux/resources/blockIO", {"weight": 5}, "is not between 10 and 1000"),
        ("/linux/resources/hugepageLimits", [{"pageSize": "2", "limit": 1}], "is not a page size"),
        ("/linux/resources/unified", {"../x.max": "1"}, "is not the name of a cgroup file"),
        ("/linux/intelRdt", {"closID": "x/y"}, "is not the name of a resctrl group"),
    ],
)
def test_contradiction_is_named(pointer: str, value: object, message: str) -> None:
    with pytest.raises(SpecFault) as caught:
        validate(parse_spec(with_change(pointer, value)))
    assert caught.value.pointer.startswith((pointer, "/mounts/0", "/linux/seccomp/listenerPath"))
    assert message in str(caught.value)


def test_mappings_need_a_user_namespace_and_may_not_overlap() -> None:
    line = {"containerID": 0, "hostID": 1000, "size": 10}
    with pytest.raises(SpecFault, match="two lines overlap at container id 5"):
        validate(parse_spec(with_change("/linux/uidMappings", [line, line | {"containerID": 5, "hostID": 5000}])))
    with pytest.raises(SpecFault, match="needs a user namespace"):
        validate(parse_spec(with_change("/linux/namespaces", [{"type": "mount"}, {"type": "time"}, {"type": "network"}])))


def test_covered_paths_need_a_mount_namespace() -> None:
    document = {"ociVersion": "1.3.0", "process": FULL["process"], "root": {"path": "r"}, "linux": {"maskedPaths": ["/x"]}}
    with pytest.raises(SpecFault, match="/linux/maskedPaths: needs a mount namespace"):
        validate(parse_spec(document))


def test_unknown_capability_of_a_newer_kernel_passes() -> None:
    validate(parse_spec(with_change("/process/capabilities/bounding/0", "CAP_OF_THE_FUTURE")))


def test_full_document_is_valid() -> None:
    validate(parse_spec(FULL))


def test_an_update_stands_beside_the_limits_there_are() -> None:
    swap = Resources(memory=Memory(swap=1 << 30))
    validate_resources(swap, update=True)
    with pytest.raises(SpecFault, match="needs a memory limit"):
        validate_resources(swap)
