"""What only pure cgroup v2 has, beside runc and crun: limits as they are written and as they are felt."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.wait import wait_for
from tests.vm.inside.systemd import CGROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.oci_node import Oci

pytestmark = pytest.mark.vm

MEBIBYTE = 1 << 20
VCS, VCSA = {"type": "c", "major": 7, "minor": 0}, {"type": "c", "major": 7, "minor": 128}
"""Two character devices that anybody may open who may."""


@pytest.fixture
def group(oci: Oci) -> Iterator[Path]:
    """Give the directory of the container's cgroup, two levels below a new one of its own."""
    top = f"wtest-{secrets.token_hex(4)}"
    oci.config["linux"]["cgroupsPath"] = f"/{top}/a/b"
    yield CGROUPS / top / "a/b"
    oci.close()
    for folder in (CGROUPS / top / "a/b", CGROUPS / top / "a", CGROUPS / top):
        if folder.exists():
            folder.rmdir()


def resources(oci: Oci, **limits: object) -> None:
    oci.config["linux"]["resources"] = limits


def text(path: Path) -> str:
    return path.read_text().strip()


def disk() -> tuple[int, int]:
    """Give the numbers of the root file system's disk."""
    device = os.stat("/").st_dev
    return os.major(device), os.minor(device)


def test_every_controller_is_handed_down(oci: Oci, group: Path) -> None:
    oci.start("sleep", "1000")
    assert {"cpuset", "cpu", "io", "memory", "hugetlb", "pids"} <= set(text(group / "cgroup.controllers").split())


def test_limits_are_written(oci: Oci, group: Path) -> None:
    major, minor = disk()
    resources(
        oci,
        memory={"limit": 64 * MEBIBYTE, "reservation": 32 * MEBIBYTE, "swap": 96 * MEBIBYTE},
        cpu={"quota": 20_000, "period": 50_000, "cpus": "0", "mems": "0"},
        pids={"limit": 30},
        blockIO={"throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": 1 << 20}]},
        hugepageLimits=[{"pageSize": "2MB", "limit": 4 * MEBIBYTE}],
        unified={"memory.high": str(48 * MEBIBYTE)},
    )
    oci.start("sleep", "1000")
    written = {file: text(group / file) for file in ("memory.max", "memory.low", "memory.swap.max", "memory.high", "cpu.max",
               "cpuset.cpus", "cpuset.mems", "pids.max", "hugetlb.2MB.max")}  # fmt: skip
    assert written == {
        "memory.max": str(64 * MEBIBYTE),
        "memory.low": str(32 * MEBIBYTE),
        "memory.swap.max": str(32 * MEBIBYTE),
        "memory.high": str(48 * MEBIBYTE),
        "cpu.max": "20000 50000",
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
        "pids.max": "30",
        "hugetlb.2MB.max": str(4 * MEBIBYTE),
    }
    assert text(group / "io.max") == f"{major}:{minor} rbps=1048576 wbps=max riops=max wiops=max"


def test_limits_are_updated(oci: Oci, group: Path) -> None:
    name = oci.start("sleep", "1000")
    oci.ok(
        "update",
        "--memory",
        str(40 * MEBIBYTE),
        "--memory-swap",
        str(50 * MEBIBYTE),
        "--pids-limit",
        "20",
        "--cpu-quota",
        "30000",
        name,
    )
    assert text(group / "memory.max") == str(40 * MEBIBYTE)
    assert text(group / "memory.swap.max") == str(10 * MEBIBYTE)
    assert text(group / "pids.max") == "20"
    assert text(group / "cpu.max").split()[0] == "30000"
    oci.ok("update", "--memory", "-1", "--pids-limit", "-1", name)
    assert text(group / "memory.max") == "max"
    assert text(group / "pids.max") == "max"


def test_flags_of_update_and_the_files_they_write(oci: Oci, group: Path) -> None:
    if not oci.ours:
        pytest.skip("half of them came with runc 1.2")
    resources(oci, cpu={"quota": 40000, "period": 80000, "shares": 512})
    name = oci.start("sleep", "1000")
    oci.ok("update", "--cpu-burst", "10000", "--memory-reservation", "20M", "--blkio-weight", "400", "--cpuset-mems", "0", name)
    assert text(group / "cpu.max.burst") == "10000"
    assert text(group / "memory.low") == str(20 * MEBIBYTE)
    assert text(group / "cpuset.mems") == "0"
    weights = [text(group / file) for file in ("io.bfq.weight", "io.weight") if (group / file).exists()]
    assert weights in (["default 400"], ["400"], ["default 3940"], ["default 400", "default 100"])
    oci.ok("update", "--cpu-idle", "1", name)
    assert (text(group / "cpu.idle"), text(group / "cpu.max")) == ("1", "40000 80000")
    oci.ok("update", "--cpu-idle", "0", "--cpu-share", "1024", name)
    assert (text(group / "cpu.idle"), text(group / "cpu.weight")) == ("0", "100")
    done = oci.call("update", "--cpu-rt-runtime", "1000", name)
    assert done.returncode == 1
    assert "real-time" in done.stderr or "realtime" in done.stderr
    wanted = json.dumps({"unified": {"memory.high": str(48 * MEBIBYTE)}, "hugepageLimits": [{"pageSize": "2MB", "limit": 0}]})
    oci.ok("update", "--resources", "-", name, stdin=None, input=wanted)
    assert (text(group / "memory.high"), text(group / "hugetlb.2MB.max")) == (str(48 * MEBIBYTE), "0")


def test_an_update_may_look_at_what_is_used_before(oci: Oci, group: Path) -> None:
    """memory.checkBeforeUpdate: without it the kernel makes room by killing."""
    if not oci.ours:
        pytest.skip("it came with runc 1.2")
    name = oci.start("sleep", "1000")
    wanted = json.dumps({"memory": {"limit": 4096, "checkBeforeUpdate": True}})
    done = oci.call("update", "--resources", "-", name, stdin=None, input=wanted)
    assert done.returncode == 1
    assert "rejecting memory limit 4096 <= usage" in done.stderr
    assert text(group / "memory.max") == "max"
    assert oci.state(name)["status"] == "running"


def test_quota_and_period_are_updated_one_by_one(oci: Oci, group: Path) -> None:
    """v2 has one file for both: what is not named stays."""
    resources(oci, cpu={"quota": 500_000, "period": 1_000_000})
    name = oci.start("sleep", "1000")
    for option, value, written in (
        ("--cpu-period", "900000", "500000 900000"),
        ("--cpu-quota", "600000", "600000 900000"),
        ("--cpu-quota", "-1", "max 900000"),
        ("--cpu-period", "100000", "max 100000"),
    ):
        oci.ok("update", option, value, name)
        assert text(group / "cpu.max") == written


def test_too_many_processes_are_refused(oci: Oci, group: Path) -> None:
    resources(oci, pids={"limit": 5})
    oci.config["process"]["args"] = ["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; exec sleep 1000"]
    oci.start(*oci.config["process"]["args"])
    wait_for(lambda: "max 0" not in text(group / "pids.events"), "a fork to be refused")
    assert int(text(group / "pids.current")) <= 5


def test_a_kill_for_memory_is_counted(oci: Oci, group: Path) -> None:
    resources(oci, memory={"limit": 16 * MEBIBYTE, "swap": 16 * MEBIBYTE})
    name = oci.start("sh", "-c", "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done")
    oci.wait_status(name, "stopped")
    assert "oom_kill 0" not in text(group / "memory.events").splitlines()


def test_devices_are_judged(oci: Oci, group: Path) -> None:
    resources(oci, devices=[{"allow": False, "access": "rwm"}, {"allow": True, **VCS, "access": "r"}])
    paths = {"/dev/vcs": VCS, "/dev/vcsa": VCSA}
    oci.config["linux"]["devices"] = [{"path": path, **device, "fileMode": 0o666} for path, device in paths.items()]
    name = oci.start("sleep", "1000")
    assert group.exists()
    assert oci.call("exec", name, "sh", "-c", "exec 3</dev/vcs").returncode == 0
    assert oci.call("exec", name, "sh", "-c", "exec 3>/dev/vcs").returncode != 0
    assert oci.call("exec", name, "sh", "-c", "exec 3</dev/vcsa").returncode != 0
    assert oci.call("exec", name, "sh", "-c", "exec 3<>/dev/null 4</dev/urandom").returncode == 0


def test_a_forking_family_is_killed_at_once(oci: Oci, group: Path) -> None:
    name = oci.start("sh", "-c", "while :; do sleep 1000 & sleep 0.05; done")
    wait_for(lambda: len(text(group / "cgroup.procs").split()) > 5, "the family to grow", seconds=60)
    oci.ok("pause", name)
    oci.wait_status(name, "paused")
    oci.ok("delete", "--force", name)
    assert not group.exists()


def test_oom_scores_below_the_runtime_s_own(oci: Oci, group: Path) -> None:
    assert group.parent
    oci.config["process"]["oomScoreAdj"] = -500
    assert oci.output("cat", "/proc/self/oom_score_adj").strip() == "-500"


def programs(directory: Path) -> list[int]:
    """Give the ids of the device programs of a cgroup."""
    from ctypes import addressof

    from runtime.kernel.bpf import _bpf
    from runtime.kernel.libc import buffer, u32, u64

    ids = buffer(256)
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        query = buffer(128)
        query.raw = (u32(group, 6, 0, 0) + u64(addressof(ids)) + u32(64)).ljust(128, b"\0")
        _bpf(16, query, 128)
    finally:
        os.close(group)
    count = int.from_bytes(query.raw[24:28], "little")
    return [int.from_bytes(ids.raw[at : at + 4], "little") for at in range(0, 4 * count, 4)]


def test_the_device_program_is_replaced_in_one_step(ours: Oci) -> None:
    """A container that opens an allowed device all the time never fails while others come and go."""
    top = f"wtest-{secrets.token_hex(4)}"
    ours.config["linux"]["cgroupsPath"] = f"/{top}"
    ours.config["linux"]["devices"] = [{"path": "/dev/vcs", **VCS, "fileMode": 0o666}]
    resources(ours, devices=[{"allow": False, "access": "rwm"}])
    name = ours.start("sh", "-c", "while :; do true </dev/zero || exit 3; done")
    assert ours.call("exec", name, "sh", "-c", "exec 3</dev/vcs").returncode != 0
    (before,) = programs(CGROUPS / top)
    wanted = ours.bundle / "resources.json"
    for devices, code in (([{"allow": True, **VCS, "access": "rw"}], 0), ([], 1)):
        wanted.write_text(json.dumps({"devices": [{"allow": False, "access": "rwm"}, *devices]}))
        ours.ok("update", "--resources", str(wanted), name)
        (after,) = programs(CGROUPS / top)
        assert after != before
        before = after
        assert ours.call("exec", name, "sh", "-c", "exec 3</dev/vcs").returncode == code
    wanted.write_text(json.dumps({"devices": [{"allow": True, "access": "rwm"}]}))
    ours.ok("update", "--resources", str(wanted), name)
    assert programs(CGROUPS / top) == []
    assert ours.state(name)["status"] == "running"


def test_exec_into_a_cgroup_below(oci: Oci, group: Path) -> None:
    name = oci.start("sleep", "1000")
    (group / "child").mkdir()
    assert (
        oci.ok("exec", "--cgroup", "child", name, "cat", "/proc/self/cgroup").strip()
        == f"0::/{group.relative_to(CGROUPS)}/child"
    )
    assert oci.call("exec", "--cgroup", "absent", name, "true").returncode != 0


@pytest.mark.parametrize("twice", [False, True])
def test_exec_follows_an_init_that_has_moved_on(oci: Oci, group: Path, *, twice: bool) -> None:
    """A systemd in a container does so: once controllers are handed down, its own cgroup takes no process any more."""
    if twice:
        oci.config["process"]["capabilities"]["bounding"].append("CAP_SYS_PTRACE")
    name = oci.start("sleep", "1000")
    (group / "own").mkdir()
    (group / "own/cgroup.procs").write_text(str(oci.state(name)["pid"]))
    (group / "cgroup.subtree_control").write_text("+memory")
    assert oci.ok("exec", name, "cat", "/proc/self/cgroup").strip() == f"0::/{group.relative_to(CGROUPS)}/own"
    assert oci.call("exec", "--cgroup", "/", name, "true").returncode != 0
    oci.ok("delete", "--force", name)
    assert not group.exists()


def test_a_cgroup_namespace_shows_the_cgroup_as_root(oci: Oci, group: Path) -> None:
    assert group.parent
    oci.config["linux"]["namespaces"].append({"type": "cgroup"})
    oci.config["mounts"].append(
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"]}
    )
    shown = oci.shell("cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs; ls /sys/fs/cgroup")
    assert shown.splitlines()[:2] == ["0::/", "1"]
    assert "memory.max" in shown


@pytest.mark.parametrize(
    ("options", "namespaced", "given"),
    [(["nosuid", "rw"], True, True), (["ro"], True, False), (["rw"], False, False)],
)
def test_a_cgroup_shown_for_writing_is_its_user_s(ours: Oci, *, options: list[str], namespaced: bool, given: bool) -> None:
    """In a cgroup namespace of its own: config-linux.md, "Cgroup ownership"."""
    top = CGROUPS / f"wtest-{secrets.token_hex(4)}"
    maps = [{"containerID": 0, "hostID": 70_000, "size": 1000}]
    ours.config["linux"] |= {"cgroupsPath": f"/{top.name}/box", "uidMappings": maps, "gidMappings": maps}
    ours.config["linux"]["namespaces"] += [{"type": "user"}, *([{"type": "cgroup"}] if namespaced else [])]
    ours.config["process"]["user"]["uid"] = 3
    ours.config["mounts"] = [one for one in ours.config["mounts"] if one["type"] != "sysfs"]
    ours.config["mounts"].append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options})
    (ours.rootfs / "sys/fs/cgroup").mkdir(parents=True, exist_ok=True)
    ours.config["linux"]["resources"] = {"memory": {"limit": 64 * MEBIBYTE}}
    try:
        script = "mkdir /sys/fs/cgroup/own && echo 0 > /sys/fs/cgroup/own/cgroup.procs && cat /proc/self/cgroup; sleep 1000"
        name = ours.start("sh", "-c", script)
        group = top / "box"
        owners = {path.name: path.stat().st_uid for path in (group, *group.iterdir())}
        listed = Path("/sys/kernel/cgroup/delegate").read_text().split()
        wanted = {"box", *listed} & owners.keys() if given else set()
        if given:
            wait_for(lambda: (group / "own/cgroup.procs").exists() and text(group / "own/cgroup.procs"), "it to move on")
            assert ours.call("exec", name, "sh", "-c", "echo max > /sys/fs/cgroup/memory.max").returncode != 0
        assert {file for file, uid in owners.items() if uid == 70_003} - {"own"} == wanted
        assert "cgroup.procs" in wanted or not given
        ours.ok("delete", "--force", name)
        assert not group.exists()
    finally:
        ours.close()
        if top.exists():
            top.rmdir()


def test_everybody_is_signalled_without_a_pid_namespace(oci: Oci, group: Path) -> None:
    oci.config["linux"]["namespaces"] = [one for one in oci.config["linux"]["namespaces"] if one["type"] != "pid"]
    oci.config["mounts"] = [one for one in oci.config["mounts"] if one["destination"] != "/proc"]
    oci.config["mounts"].append({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]})
    name = oci.start("sh", "-c", "sleep 1000 & sleep 1000 & wait")
    wait_for(lambda: len(text(group / "cgroup.procs").split()) == 3, "the family to be there")
    oci.ok("kill", "--all", name, "KILL")
    wait_for(lambda: not text(group / "cgroup.procs"), "all to end")
    oci.ok("delete", "--force", name)


def test_a_missing_controller_is_named(ours: Oci) -> None:
    """A parent that has processes can hand no controller down: the limit is an error, never left out."""
    top = CGROUPS / f"wtest-{secrets.token_hex(4)}"
    top.mkdir()
    with subprocess.Popen(["sleep", "1000"]) as occupant:
        try:
            (top / "cgroup.procs").write_text(str(occupant.pid))
            ours.config["linux"]["cgroupsPath"] = f"/{top.name}/box"
            resources(ours, memory={"limit": 64 * MEBIBYTE})
            done = ours.run("true")
            assert done.returncode == 1
            assert "hand down the controller memory" in done.stderr
            assert [path.name for path in top.iterdir() if path.is_dir()] == []
            del ours.config["linux"]["resources"]
            ours.output("true")
        finally:
            occupant.send_signal(signal.SIGKILL)
            occupant.wait()
            top.rmdir()
