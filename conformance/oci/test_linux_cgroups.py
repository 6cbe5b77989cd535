"""Control groups: what the controllers are told."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from conformance.oci.support import cgroups, host

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config-linux.md#control-groups")
MIB = 1 << 20


def running(case: Case, **resources: Any) -> None:
    """Start a container with resources."""
    case.resources(**resources)
    case.sleeper()


def present(controller: str, v1: str, v2: str) -> None:
    """Skip where the file is not."""
    cgroups.need_file(controller, v1, v2)


# memory


@pytest.mark.rule("config-linux.md#memory")
def test_memory_limit(case: Case) -> None:
    """memory.limit is set."""
    present("memory", "memory.limit_in_bytes", "memory.max")
    running(case, memory={"limit": 64 * MIB})
    assert cgroups.value(case, "memory", "memory.limit_in_bytes", "memory.max") == str(64 * MIB)


@pytest.mark.rule("config-linux.md#memory")
def test_memory_unlimited(case: Case) -> None:
    """A limit of -1 is none."""
    present("memory", "memory.limit_in_bytes", "memory.max")
    running(case, memory={"limit": -1})
    found = cgroups.value(case, "memory", "memory.limit_in_bytes", "memory.max")
    assert found == "max" or int(found) > 1 << 60


@pytest.mark.rule("config-linux.md#memory")
def test_memory_reservation(case: Case) -> None:
    """memory.reservation is set."""
    present("memory", "memory.soft_limit_in_bytes", "memory.low")
    running(case, memory={"reservation": 16 * MIB})
    assert cgroups.value(case, "memory", "memory.soft_limit_in_bytes", "memory.low") == str(16 * MIB)


@pytest.mark.rule("config-linux.md#memory")
def test_memory_swap(case: Case) -> None:
    """memory.swap is the limit of memory and swap together."""
    present("memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
    running(case, memory={"limit": 64 * MIB, "swap": 96 * MIB})
    wanted = 32 * MIB if host.v2() else 96 * MIB
    assert cgroups.value(case, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max") == str(wanted)


@pytest.mark.rule("config-linux.md#memory")
def test_memory_swappiness(case: Case) -> None:
    """memory.swappiness is set."""
    present("memory", "memory.swappiness", "")
    running(case, memory={"swappiness": 33})
    assert cgroups.value(case, "memory", "memory.swappiness", "") == "33"


@pytest.mark.rule("config-linux.md#memory")
def test_memory_no_oom_killer(case: Case) -> None:
    """memory.disableOOMKiller is set."""
    present("memory", "memory.oom_control", "")
    running(case, memory={"disableOOMKiller": True, "limit": 64 * MIB})
    assert "oom_kill_disable 1" in cgroups.value(case, "memory", "memory.oom_control", "")


@pytest.mark.rule("config-linux.md#memory")
def test_memory_is_enforced(case: Case) -> None:
    """A process that takes more than its limit is killed."""
    present("memory", "memory.limit_in_bytes", "memory.max")
    case.resources(memory={"limit": 16 * MIB, "swap": 16 * MIB})
    script = "x=0123456789abcdef; while :; do x=$x$x; done"
    assert case.run("sh", "-c", script).returncode in {137, 2}


@pytest.mark.rule("config-linux.md#memory")
def test_memory_below_use(case: Case) -> None:
    """A limit that nothing can live in is an error, or kills; it is not ignored."""
    present("memory", "memory.limit_in_bytes", "memory.max")
    case.resources(memory={"limit": 4096, "swap": 4096})
    assert case.run("sh", "-c", "sleep 0.1; cat /proc/self/status > /dev/null").returncode != 0


# cpu


@pytest.mark.rule("config-linux.md#cpu")
def test_cpu_shares(case: Case) -> None:
    """cpu.shares is set, on v2 as a weight."""
    present("cpu", "cpu.shares", "cpu.weight")
    running(case, cpu={"shares": 2048})
    found = cgroups.value(case, "cpu", "cpu.shares", "cpu.weight")
    assert found in (cgroups.weight_of_shares(2048) if host.v2() else {"2048"})


@pytest.mark.rule("config-linux.md#cpu")
def test_cpu_quota_and_period(case: Case) -> None:
    """cpu.quota and cpu.period are set."""
    present("cpu", "cpu.cfs_quota_us", "cpu.max")
    running(case, cpu={"quota": 40000, "period": 80000})
    if host.v2():
        assert cgroups.value(case, "cpu", "", "cpu.max") == "40000 80000"
    else:
        assert cgroups.value(case, "cpu", "cpu.cfs_quota_us", "") == "40000"
        assert cgroups.value(case, "cpu", "cpu.cfs_period_us", "") == "80000"


@pytest.mark.rule("config-linux.md#cpu")
@pytest.mark.parametrize(("asked", "wanted"), [({"quota": 50000}, ("50000", "100000")), ({"period": 200000}, ("-1", "200000"))])
def test_cpu_one_of_both(case: Case, asked: dict[str, int], wanted: tuple[str, str]) -> None:
    """Quota or period alone leaves the other as it is."""
    present("cpu", "cpu.cfs_quota_us", "cpu.max")
    running(case, cpu=asked)
    if host.v2():
        assert cgroups.value(case, "cpu", "", "cpu.max") == f"{wanted[0].replace('-1', 'max')} {wanted[1]}"
    else:
        assert cgroups.value(case, "cpu", "cpu.cfs_quota_us", "") == wanted[0]
        assert cgroups.value(case, "cpu", "cpu.cfs_period_us", "") == wanted[1]


@pytest.mark.rule("config-linux.md#cpu")
def test_cpu_burst(case: Case) -> None:
    """cpu.burst is set."""
    present("cpu", "cpu.cfs_burst_us", "cpu.max.burst")
    running(case, cpu={"quota": 40000, "period": 80000, "burst": 20000})
    assert cgroups.value(case, "cpu", "cpu.cfs_burst_us", "cpu.max.burst") == "20000"


@pytest.mark.rule("config-linux.md#cpu")
def test_cpu_idle(case: Case) -> None:
    """cpu.idle is set."""
    present("cpu", "cpu.idle", "cpu.idle")
    running(case, cpu={"idle": 1})
    assert cgroups.value(case, "cpu", "cpu.idle", "cpu.idle") == "1"


@pytest.mark.rule("config-linux.md#cpu")
@pytest.mark.parametrize(("part", "name"), [("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")])
def test_cpuset(case: Case, part: str, name: str) -> None:
    """cpu.cpus and cpu.mems are set."""
    present("cpuset", name, name)
    running(case, cpu={part: "0"})
    assert cgroups.value(case, "cpuset", name, name) == "0"


@pytest.mark.rule("config-linux.md#cpu")
def test_cpuset_is_enforced(case: Case) -> None:
    """The process may use the CPUs of cpu.cpus only."""
    present("cpuset", "cpuset.cpus", "cpuset.cpus")
    case.resources(cpu={"cpus": "0"})
    assert case.shell("nproc") == "1"


@pytest.mark.rule("config-linux.md#cpu")
@pytest.mark.parametrize(
    "cpu", [{"cpus": "first"}, {"cpus": "4000"}, {"period": 1}, {"quota": 1}], ids=["word", "far", "period", "quota"]
)
def test_cpu_invalid(case: Case, cpu: dict[str, Any]) -> None:
    """What the kernel refuses is an error."""
    present("cpuset", "cpuset.cpus", "cpuset.cpus")
    case.resources(cpu=cpu)
    case.refused("true")


# pids, io, others


@pytest.mark.rule("config-linux.md#pids")
@pytest.mark.parametrize(("limit", "wanted"), [(7, "7"), (1000, "1000"), (-1, "max"), (0, "max")])
def test_pids(case: Case, limit: int, wanted: str) -> None:
    """pids.limit is set; -1 is none, and so is 0 in a document of 1.0, which has to have a number there."""
    present("pids", "pids.max", "pids.max")
    running(case, pids={"limit": limit})
    assert cgroups.value(case, "pids", "pids.max", "pids.max") == wanted


@pytest.mark.rule("config-linux.md#pids")
def test_pids_is_enforced(case: Case) -> None:
    """Nobody can fork beyond pids.limit."""
    present("pids", "pids.max", "pids.max")
    case.resources(pids={"limit": 3})
    done = case.run("sh", "-c", "for i in 1 2 3 4 5; do sleep 1 & done; wait")
    assert "fork" in done.stderr


@pytest.mark.rule("config-linux.md#block-io")
def test_block_throttle(case: Case) -> None:
    """blockIO.throttle* are set for a device."""
    present("blkio", "blkio.throttle.read_bps_device", "io.max")
    device = host.block_device()
    running(case, blockIO=cgroups.throttles(device))
    cgroups.has_throttles(case, device)


@pytest.mark.rule("config-linux.md#block-io")
def test_block_weight(case: Case) -> None:
    """blockIO.weight is set where a scheduler knows weights."""
    host.need_controller("blkio")
    known = [("blkio.weight", "io.weight"), ("blkio.bfq.weight", "io.bfq.weight")]
    found = [names for names in known if cgroups.has_file("blkio", *names)]
    host.need(found, "no weights in the blkio controller")
    running(case, blockIO={"weight": 500})
    text = cgroups.value(case, "blkio", *found[-1])
    assert any(char.isdigit() for char in text)
    assert "500" in text or host.v2()


@pytest.mark.rule("config-linux.md#huge-page-limits")
def test_huge_pages(case: Case) -> None:
    """hugepageLimits are set."""
    present("hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max")
    running(case, hugepageLimits=[{"pageSize": "2MB", "limit": 4 * MIB}])
    assert cgroups.value(case, "hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max") == str(4 * MIB)


@pytest.mark.rule("config-linux.md#huge-page-limits")
def test_huge_pages_invalid(case: Case) -> None:
    """A page size that does not exist is an error."""
    case.resources(hugepageLimits=[{"pageSize": "3MB", "limit": 4 * MIB}])
    case.refused("true")


@pytest.mark.rule("config-linux.md#network")
def test_network_class(case: Case) -> None:
    """network.classID is set."""
    present("net_cls", "net_cls.classid", "")
    running(case, network={"classID": 1048577})
    assert cgroups.value(case, "net_cls", "net_cls.classid", "") == "1048577"


@pytest.mark.rule("config-linux.md#network")
def test_network_priorities(case: Case) -> None:
    """network.priorities are set."""
    present("net_prio", "net_prio.ifpriomap", "")
    running(case, network={"priorities": [{"name": "lo", "priority": 5}]})
    assert "lo 5" in cgroups.value(case, "net_prio", "net_prio.ifpriomap", "")


@pytest.mark.rule("config-linux.md#rdma")
def test_rdma(case: Case) -> None:
    """rdma limits are set."""
    host.need_controller("rdma")
    devices = os.listdir("/sys/class/infiniband") if os.path.isdir("/sys/class/infiniband") else []
    host.need(devices, "no RDMA device")
    running(case, rdma={devices[0]: {"hcaHandles": 3, "hcaObjects": 10}})
    assert f"{devices[0]} hca_handle=3 hca_object=10" in cgroups.value(case, "rdma", "rdma.max", "rdma.max")


@pytest.mark.rule("config-linux.md#unified")
def test_unified(case: Case) -> None:
    """`unified` names files of cgroup v2 and their text."""
    host.need(host.v2(), "cgroup v2")
    host.need_controller("memory")
    running(case, unified={"memory.high": "67108864", "pids.max": "99"})
    assert cgroups.value(case, "memory", "", "memory.high") == "67108864"
    assert cgroups.value(case, "pids", "", "pids.max") == "99"


@pytest.mark.rule("config-linux.md#unified")
@pytest.mark.parametrize("key", ["no.such.file", "memory.nosuch", "../escape", "a/b"])
def test_unified_invalid(case: Case, key: str) -> None:
    """A file that does not exist, or is none of a cgroup, is an error (on v1 every file is)."""
    case.resources(unified={key: "1"})
    case.refused("true")


@pytest.mark.rule("config-linux.md#unified")
def test_unified_on_v1(case: Case) -> None:
    """Where there is no cgroup v2, `unified` cannot be applied, and is an error."""
    host.need(not host.v2(), "cgroup v1")
    case.resources(unified={"memory.high": "67108864"})
    case.refused("true")


def test_no_resources(case: Case) -> None:
    """Empty resources are no resources."""
    case.resources(memory={}, cpu={}, pids={"limit": 100}, blockIO={}, hugepageLimits=[], network={})
    assert case.shell("echo yes") == "yes"
