"""update: every flag, every key of its document, and which of them change what."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conformance.oci.support import cgroups, host

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("runc: update")
MIB = 1 << 20

FLAGS: list[tuple[list[str], str, str, str, str]] = [
    (
        ["--memory", str(80 * MIB), "--memory-swap", str(90 * MIB)],
        "memory",
        "memory.limit_in_bytes",
        "memory.max",
        str(80 * MIB),
    ),
    (["--memory-reservation", str(20 * MIB)], "memory", "memory.soft_limit_in_bytes", "memory.low", str(20 * MIB)),
    (["--pids-limit", "33"], "pids", "pids.max", "pids.max", "33"),
    (["--pids-limit", "-1"], "pids", "pids.max", "pids.max", "max"),
    (["--cpu-quota", "30000"], "cpu", "cpu.cfs_quota_us", "", "30000"),
    (["--cpu-period", "90000"], "cpu", "cpu.cfs_period_us", "", "90000"),
    (["--cpu-share", "512"], "cpu", "cpu.shares", "", "512"),
    (["--cpu-burst", "10000"], "cpu", "cpu.cfs_burst_us", "cpu.max.burst", "10000"),
    (["--cpu-idle", "1"], "cpu", "cpu.idle", "cpu.idle", "1"),
    (["--cpu-rt-period", "900000"], "cpu", "cpu.rt_period_us", "", "900000"),
    (["--memory-swap", str(72 * MIB)], "memory", "memory.memsw.limit_in_bytes", "", str(72 * MIB)),
    (["--cpuset-cpus", "0"], "cpuset", "cpuset.cpus", "cpuset.cpus", "0"),
    (["--cpuset-mems", "0"], "cpuset", "cpuset.mems", "cpuset.mems", "0"),
]


@pytest.mark.parametrize("entry", FLAGS, ids=lambda entry: "".join(entry[0][:1]).removeprefix("--"))
def test_update_flag(case: Case, entry: tuple[list[str], str, str, str, str]) -> None:
    """A flag of update changes a running container's limit."""
    flags, controller, v1, v2, wanted = entry
    cgroups.need_file(controller, v1, v2)
    case.resources(
        memory={"limit": 64 * MIB, "swap": 64 * MIB}, pids={"limit": 20}, cpu={"quota": 40000, "period": 80000, "shares": 100}
    )
    name = case.sleeper()
    case.ok("update", *flags, name)
    assert cgroups.value(case, controller, v1, v2) == wanted


@pytest.mark.parametrize("way", ["file", "stdin"])
def test_update_resources(case: Case, way: str) -> None:
    """--resources reads linux.resources from a file or from standard input."""
    cgroups.need_file("pids", "pids.max", "pids.max")
    case.resources(pids={"limit": 20})
    name = case.sleeper()
    text = json.dumps({"pids": {"limit": 44}, "memory": {"limit": 70 * MIB}})
    if way == "file":
        (case.bundle / "resources.json").write_text(text)
        case.ok("update", "--resources", str(case.bundle / "resources.json"), name)
    else:
        case.ok("update", "--resources", "-", name, stdin=None, input=text)
    assert cgroups.value(case, "pids", "pids.max", "pids.max") == "44"
    assert cgroups.value(case, "memory", "memory.limit_in_bytes", "memory.max") == str(70 * MIB)


def test_update_keeps_the_rest(case: Case) -> None:
    """What update does not mention stays."""
    cgroups.need_file("pids", "pids.max", "pids.max")
    case.resources(pids={"limit": 20}, memory={"limit": 64 * MIB})
    name = case.sleeper()
    case.ok("update", "--resources", "-", name, stdin=None, input=json.dumps({"memory": {"limit": 80 * MIB}}))
    assert cgroups.value(case, "pids", "pids.max", "pids.max") == "20"


def test_update_invalid(case: Case) -> None:
    """What the kernel refuses is an error, and changes nothing."""
    cgroups.need_file("cpuset", "cpuset.cpus", "cpuset.cpus")
    name = case.sleeper()
    before = cgroups.value(case, "cpuset", "cpuset.cpus", "cpuset.cpus")
    case.fails("update", "--cpuset-cpus", "4000", name)
    assert cgroups.value(case, "cpuset", "cpuset.cpus", "cpuset.cpus") == before


def test_update_unknown(case: Case) -> None:
    """A container that does not exist is an error."""
    case.fails("update", "--pids-limit", "5", "judge-nobody")


def test_update_keeps_devices_closed(case: Case) -> None:
    """An update of other limits does not open devices."""
    host.need_controller("devices")
    case.resources(devices=[{"allow": False, "access": "rwm"}])
    os.mknod(case.rootfs / "kmsg", 0o020666, os.makedev(1, 11))
    case.grant("CAP_SYSLOG")
    name = case.sleeper()
    case.ok("update", "--pids-limit", "50", name)
    assert case.call("exec", name, "sh", "-c", "true < /kmsg").returncode != 0


def test_update_idle_and_back(case: Case) -> None:
    """A container with shares becomes idle, and has shares again when it is no longer."""
    cgroups.need_file("cpu", "cpu.idle", "cpu.idle")
    case.resources(cpu={"shares": 512})
    name = case.sleeper()
    case.ok("update", "--cpu-idle", "1", name)
    assert cgroups.value(case, "cpu", "cpu.idle", "cpu.idle") == "1"
    case.ok("update", "--cpu-idle", "0", "--cpu-share", "1024", name)
    assert cgroups.value(case, "cpu", "cpu.idle", "cpu.idle") == "0"
    assert cgroups.value(case, "cpu", "cpu.shares", "cpu.weight") in ({"1024"} | cgroups.weight_of_shares(1024))


def test_update_realtime(case: Case) -> None:
    """--cpu-rt-runtime gives real-time microseconds, where the cgroup above has some to give."""
    cgroups.need_file("cpu", "cpu.rt_runtime_us", "")
    name = case.sleeper()
    above = host.read(str(Path(cgroups.folder(case.pid(), "cpu")).parent / "cpu.rt_runtime_us"))
    if int(above) < 20000:
        assert case.call("update", "--cpu-rt-runtime", "10000", name).returncode != 0, "the kernel refuses what is not there"
        return
    case.ok("update", "--cpu-rt-period", "1000000", "--cpu-rt-runtime", "10000", name)
    assert cgroups.value(case, "cpu", "cpu.rt_runtime_us", "") == "10000"


@pytest.mark.parametrize("way", ["flag", "document"])
def test_update_block_weight(case: Case, way: str) -> None:
    """The weight of block I/O, where a scheduler knows weights."""
    host.need_controller("blkio")
    known = [("blkio.weight", "io.weight"), ("blkio.bfq.weight", "io.bfq.weight")]
    found = [names for names in known if cgroups.has_file("blkio", *names)]
    host.need(found, "no weights in the blkio controller")
    name = case.sleeper()
    before = cgroups.value(case, "blkio", *found[-1])
    if way == "flag":
        case.ok("update", "--blkio-weight", "400", name)
    else:
        changed(case, blockIO={"weight": 400})
    after = cgroups.value(case, "blkio", *found[-1])
    assert after != before
    assert "400" in after or host.v2()


@pytest.mark.parametrize("flag", ["--kernel-memory", "--kernel-memory-tcp"])
def test_update_kernel_memory(case: Case, flag: str) -> None:
    """What kernels no longer have is passed over, since callers still give it."""
    name = case.sleeper()
    case.ok("update", flag, str(64 * MIB), name)


@pytest.mark.parametrize("flag", ["--l3-cache-schema", "--mem-bw-schema"])
def test_update_rdt(case: Case, flag: str) -> None:
    """A schema of Intel RDT is an error where there is none."""
    host.need(not host.has_resctrl(), "Intel RDT is there, and a schema of this machine unknown")
    name = case.sleeper()
    case.fails("update", flag, "L3:0=f" if "l3" in flag else "MB:0=20", name)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--memory", "much"],
        ["--cpu-share", "-1"],
        ["--pids-limit", "word"],
        ["--cpu-idle", "7"],
        ["--blkio-weight", "5000"],
        ["--cpu-period", "1"],
        ["--memory", "2G", "--memory-swap", "1G"],
    ],
    ids=" ".join,
)
def test_update_wrong_flag(case: Case, wrong: list[str]) -> None:
    """A value that is none, or that no kernel takes, is an error."""
    for controller in ("memory", "cpu", "pids", "blkio"):
        host.need_controller(controller)
    case.fails("update", *wrong, case.sleeper())


def changed(case: Case, **resources: Any) -> None:
    """Update the newest container by a document."""
    case.ok("update", "--resources", "-", case.id, stdin=None, input=json.dumps(resources))


KEYS: list[tuple[dict[str, Any], str, str, str, str]] = [
    ({"cpu": {"shares": 512}}, "cpu", "cpu.shares", "", "512"),
    ({"cpu": {"quota": 30000}}, "cpu", "cpu.cfs_quota_us", "", "30000"),
    ({"cpu": {"period": 90000}}, "cpu", "cpu.cfs_period_us", "", "90000"),
    ({"cpu": {"burst": 15000}}, "cpu", "cpu.cfs_burst_us", "cpu.max.burst", "15000"),
    ({"cpu": {"idle": 1}}, "cpu", "cpu.idle", "cpu.idle", "1"),
    ({"cpu": {"realtimePeriod": 800000}}, "cpu", "cpu.rt_period_us", "", "800000"),
    ({"cpu": {"cpus": "0", "mems": "0"}}, "cpuset", "cpuset.cpus", "cpuset.cpus", "0"),
    ({"memory": {"reservation": 20 * MIB}}, "memory", "memory.soft_limit_in_bytes", "memory.low", str(20 * MIB)),
    ({"memory": {"limit": 66 * MIB, "swap": 70 * MIB}}, "memory", "memory.memsw.limit_in_bytes", "", str(70 * MIB)),
    ({"memory": {"limit": 50 * MIB}}, "memory", "memory.limit_in_bytes", "memory.max", str(50 * MIB)),
    ({"pids": {"limit": 42}}, "pids", "pids.max", "pids.max", "42"),
]


@pytest.mark.parametrize("entry", KEYS, ids=lambda entry: json.dumps(entry[0]).replace('"', ""))
def test_update_key(case: Case, entry: tuple[dict[str, Any], str, str, str, str]) -> None:
    """A key of the document changes a running container's limit."""
    resources, controller, v1, v2, wanted = entry
    cgroups.need_file(controller, v1, v2)
    case.resources(memory={"limit": 60 * MIB, "swap": 60 * MIB}, cpu={"quota": 40000, "period": 80000, "shares": 100})
    case.sleeper()
    changed(case, **resources)
    assert cgroups.value(case, controller, v1, v2) == wanted


def test_update_throttle(case: Case) -> None:
    """blockIO.throttle* of the document change what a device may do."""
    cgroups.need_file("blkio", "blkio.throttle.read_bps_device", "io.max")
    device = host.block_device()
    entry = {"major": os.major(device), "minor": os.minor(device)}
    case.resources(blockIO={"throttleReadIOPSDevice": [entry | {"rate": 100}]})
    case.sleeper()
    changed(case, blockIO=cgroups.throttles(device))
    cgroups.has_throttles(case, device)


def test_update_unified(case: Case) -> None:
    """`unified` of the document names files of cgroup v2."""
    host.need(host.v2(), "cgroup v2")
    host.need_controller("memory")
    case.sleeper()
    changed(case, unified={"memory.high": str(64 * MIB)})
    assert cgroups.value(case, "memory", "", "memory.high") == str(64 * MIB)


def test_update_devices(case: Case) -> None:
    """`devices` of the document are the new rules."""
    host.need_controller("devices")
    case.resources(devices=[{"allow": False, "access": "rwm"}])
    os.mknod(case.rootfs / "kmsg", 0o020666, os.makedev(1, 11))
    case.grant("CAP_SYSLOG")
    name = case.sleeper()
    assert case.call("exec", name, "sh", "-c", "true < /kmsg").returncode != 0
    rule = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rw"}
    changed(case, devices=[{"allow": False, "access": "rwm"}, rule])
    case.ok("exec", name, "sh", "-c", "true < /kmsg")


def test_update_empty(case: Case) -> None:
    """An empty document, and no flag at all, change nothing."""
    cgroups.need_file("pids", "pids.max", "pids.max")
    case.resources(pids={"limit": 20})
    name = case.sleeper()
    changed(case)
    case.ok("update", name)
    assert cgroups.value(case, "pids", "pids.max", "pids.max") == "20"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"pids": {"limit": "many"}}', '{"memory": 5}'])
def test_update_document_invalid(case: Case, text: str) -> None:
    """A document that is none is an error."""
    name = case.sleeper()
    case.fails("update", "--resources", "-", name, stdin=None, input=text)
    case.fails("update", "--resources", "/nonexistent", name)


def test_update_paused(case: Case) -> None:
    """A paused container is updated, and stays paused."""
    host.need_controller("freezer")
    cgroups.need_file("pids", "pids.max", "pids.max")
    case.resources(pids={"limit": 20}, devices=[{"allow": False, "access": "rwm"}])
    name = case.sleeper()
    case.ok("pause", name)
    changed(case, pids={"limit": 33}, memory={"limit": 64 * MIB})
    assert case.status() == "paused"
    assert cgroups.value(case, "pids", "pids.max", "pids.max") == "33"
    case.ok("resume", name)


def test_update_stopped(case: Case) -> None:
    """A container that has ended is not updated."""
    name = case.start("true")
    case.until("stopped")
    case.fails("update", "--pids-limit", "5", name)


def test_update_created(case: Case) -> None:
    """A created container is, and runs under the new limits."""
    cgroups.need_file("pids", "pids.max", "pids.max")
    name = case.create("sleep", "300")
    case.ok("update", "--pids-limit", "21", name)
    assert cgroups.value(case, "pids", "pids.max", "pids.max") == "21"
    case.ok("start", name)
    assert cgroups.value(case, "pids", "pids.max", "pids.max") == "21"
