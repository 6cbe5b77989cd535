"""wherry-oci --systemd-cgroup, beside runc: the scope systemd makes, what it is told, and its end."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.wait import wait_for
from tests.system.oci_node import RUNTIMES, Oci, make_node
from tests.vm.inside.systemd import CGROUPS, known, show, systemctl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.vm

MEBIBYTE = 1 << 20


@pytest.fixture(params=[runtime for runtime in RUNTIMES if runtime != "crun"])
def scoped(request: pytest.FixtureRequest, busybox_rootfs: Path) -> Iterator[Oci]:
    """Give a runtime that drives systemd, with a container's name and slice of its own."""
    yield from prepared(request.param, busybox_rootfs)


@pytest.fixture
def own(busybox_rootfs: Path) -> Iterator[Oci]:
    """Give wherry-oci alone, driving systemd."""
    yield from prepared("wherry-oci", busybox_rootfs)


def prepared(runtime: str, rootfs: Path) -> Iterator[Oci]:
    for node in make_node(runtime, rootfs):
        node.options = ["--systemd-cgroup"]
        node.config["linux"]["cgroupsPath"] = f"wtest-boats.slice:wt:{secrets.token_hex(4)}"
        yield node
    for name in ("wtest-boats.slice", "wtest.slice"):
        systemctl("stop", name)


def unit_of(node: Oci) -> str:
    _, prefix, name = node.config["linux"]["cgroupsPath"].split(":")
    return f"{prefix}-{name}.scope"


def directory_of(node: Oci) -> Path:
    return CGROUPS / "wtest.slice/wtest-boats.slice" / unit_of(node)


def read(node: Oci, file: str) -> str:
    return (directory_of(node) / file).read_text().strip()


def test_the_life_of_a_scope(scoped: Oci) -> None:
    name = scoped.start("sleep", "1000")
    pid = str(scoped.state(name)["pid"])
    unit = unit_of(scoped)
    assert read(scoped, "cgroup.procs").split() == [pid]
    told = show(unit, "Slice", "Delegate", "DefaultDependencies", "ActiveState", "TasksAccounting", "MemoryAccounting")
    assert told == {
        "Slice": "wtest-boats.slice",
        "Delegate": "yes",
        "DefaultDependencies": "no",
        "ActiveState": "active",
        "TasksAccounting": "yes",
        "MemoryAccounting": "yes",
    }
    assert scoped.ok("exec", name, "cat", "/proc/self/cgroup").strip() == f"0::/wtest.slice/wtest-boats.slice/{unit}"
    scoped.ok("pause", name)
    scoped.wait_status(name, "paused")
    scoped.ok("resume", name)
    scoped.ok("kill", name, "KILL")
    scoped.wait_status(name, "stopped")
    scoped.ok("delete", name)
    assert not known(unit)
    assert not directory_of(scoped).exists()


def test_limits_are_properties_and_files(scoped: Oci) -> None:
    scoped.config["linux"]["resources"] = {
        "memory": {"limit": 64 * MEBIBYTE, "reservation": 32 * MEBIBYTE, "swap": 96 * MEBIBYTE},
        "cpu": {"quota": 20_000, "period": 100_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 30},
        "unified": {"memory.high": str(48 * MEBIBYTE), "cpu.weight": "77"},
    }
    name = scoped.start("sleep", "1000")
    names = ("MemoryMax", "MemoryLow", "MemorySwapMax", "MemoryHigh", "CPUWeight", "CPUQuotaPerSecUSec", "TasksMax",
             "AllowedCPUs", "AllowedMemoryNodes")  # fmt: skip
    assert show(unit_of(scoped), *names) == {
        "MemoryMax": str(64 * MEBIBYTE),
        "MemoryLow": str(32 * MEBIBYTE),
        "MemorySwapMax": str(32 * MEBIBYTE),
        "MemoryHigh": str(48 * MEBIBYTE),
        "CPUWeight": "77",
        "CPUQuotaPerSecUSec": "200ms",
        "TasksMax": "30",
        "AllowedCPUs": "0",
        "AllowedMemoryNodes": "0",
    }
    assert read(scoped, "memory.high") == str(48 * MEBIBYTE)
    assert read(scoped, "cpu.weight") == "77"
    scoped.ok("update", "--memory", "80M", "--memory-swap", "-1", "--pids-limit", "-1", "--cpu-quota", "40000", name)
    assert show(unit_of(scoped), "MemoryMax", "MemorySwapMax", "TasksMax", "CPUQuotaPerSecUSec") == {
        "MemoryMax": str(80 * MEBIBYTE),
        "MemorySwapMax": "infinity",
        "TasksMax": "infinity",
        "CPUQuotaPerSecUSec": "400ms",
    }
    systemctl("daemon-reload")
    assert read(scoped, "memory.max") == str(80 * MEBIBYTE)
    assert read(scoped, "pids.max") == "max"
    assert read(scoped, "cpu.max") == "40000 100000"


def test_quota_and_period_are_updated_one_by_one(scoped: Oci) -> None:
    """systemd keeps their quotient, so the one that is not named has to be known."""
    scoped.config["linux"]["resources"] = {"cpu": {"quota": 500_000, "period": 1_000_000}}
    name = scoped.start("sleep", "1000")
    for option, value, written, told in (
        ("--cpu-period", "500000", "500000 500000", "1s"),
        ("--cpu-quota", "250000", "250000 500000", "500ms"),
        ("--cpu-quota", "-1", "max 500000", "infinity"),
    ):
        scoped.ok("update", option, value, name)
        assert read(scoped, "cpu.max") == written
        assert show(unit_of(scoped), "CPUQuotaPerSecUSec")["CPUQuotaPerSecUSec"] == told


def test_an_idle_cgroup_has_no_weight(own: Oci) -> None:
    own.config["linux"]["resources"] = {"cpu": {"shares": 512, "idle": 1}}
    name = own.start("sleep", "1000")
    assert read(own, "cpu.idle") == "1"
    own.ok("update", "--cpu-share", "512", name)
    assert (read(own, "cpu.idle"), read(own, "cpu.weight")) == ("0", "59")
    assert "ignoring cpu.weight" in own.call("update", "--cpu-share", "200", "--cpu-idle", "1", name).stderr
    systemctl("daemon-reload")
    assert read(own, "cpu.idle") == "1"


def test_annotations_set_properties(scoped: Oci) -> None:
    scoped.config["annotations"] = {
        "org.systemd.property.TimeoutStopSec": "uint32 7",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
        "org.systemd.property.After": "['basic.target']",
    }
    scoped.start("sleep", "1000")
    told = show(unit_of(scoped), "TimeoutStopUSec", "CollectMode", "After")
    assert told["TimeoutStopUSec"] == "7s"
    assert told["CollectMode"] == "inactive-or-failed"
    assert "basic.target" in told["After"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("ExecStart=/bin/sh\nX", "'x'"), ("Description", "'x'\nExecStartPre=/bin/touch /pwned"), ("NoSuchThing", "true")],
)
def test_annotations_that_are_no_property(own: Oci, name: str, value: str) -> None:
    """runc 1.1 ignores what follows a value; it must not reach systemd either way."""
    own.config["annotations"] = {f"org.systemd.property.{name}": value}
    done = own.run("true")
    assert done.returncode == 1
    assert not os.path.exists("/pwned")
    assert not known(unit_of(own))
    assert not directory_of(own).exists()


def test_devices_stay_allowed_through_a_reload(scoped: Oci) -> None:
    """systemd puts its own filter beside ours again when it reloads: it has to know every device we allow."""
    scoped.config["linux"]["resources"] = {
        "devices": [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 7, "minor": 0, "access": "rw"},
        ]
    }
    numbers = {"/dev/vcs": 0, "/dev/vcsa": 128}
    for path in numbers:
        open(path, "rb").close()  # whoever may, can
    scoped.config["linux"]["devices"] = [
        {"path": path, "type": "c", "major": 7, "minor": minor, "fileMode": 0o666} for path, minor in numbers.items()
    ]
    name = scoped.start("sleep", "1000")
    for _ in range(2):
        scoped.ok("exec", name, "sh", "-c", "exec 3<>/dev/vcs && exec 4<>/dev/null")
        assert scoped.call("exec", name, "sh", "-c", "exec 3</dev/vcsa").returncode != 0
        systemctl("daemon-reload")


def test_a_failed_scope_makes_room(scoped: Oci) -> None:
    """A scope whose processes the kernel killed for memory stays behind as failed; the next one of its name has to come up."""
    scoped.config["linux"]["resources"] = {"memory": {"limit": 16 * MEBIBYTE, "swap": 16 * MEBIBYTE}}
    name = scoped.start("sh", "-c", "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done")
    scoped.wait_status(name, "stopped")
    wait_for(lambda: show(unit_of(scoped), "ActiveState")["ActiveState"] != "active", "the scope to end")
    again = scoped.start("sleep", "1000")
    assert show(unit_of(scoped), "ActiveState")["ActiveState"] == "active"
    scoped.ok("delete", "--force", again)
    scoped.ok("delete", "--force", name)
    assert not known(unit_of(scoped))


def test_a_scope_that_is_used_is_refused(own: Oci) -> None:
    """runc 1.1 moves in with the other container."""
    first = own.start("sleep", "1000")
    done = own.call("create", own.new_id())
    assert done.returncode == 1
    assert unit_of(own) in done.stderr
    assert show(unit_of(own), "ActiveState")["ActiveState"] == "active"
    own.ok("exec", first, "true")
    own.ok("delete", "--force", first)


def test_the_bus_may_restart(own: Oci) -> None:
    name = own.start("sleep", "1000")
    systemctl("stop", "dbus.socket", "dbus.service")
    try:
        own.ok("update", "--pids-limit", "40", name)
        assert read(own, "pids.max") == "40"
        own.ok("delete", "--force", name)
    finally:
        systemctl("start", "dbus.socket", "dbus.service")
    assert not known(unit_of(own))


def test_a_killed_creator_leaves_no_scope(own: Oci) -> None:
    """The process that holds the scope until init is in it ends with the creator, and systemd clears an empty scope away."""
    hook = own.bundle / "hook"
    hook.write_text(
        f"#!/bin/sh\necho $$ >{own.bundle}/.reached\nmv {own.bundle}/.reached {own.bundle}/reached\nexec sleep 1000\n"
    )
    hook.chmod(0o755)
    own.config["hooks"] = {"createRuntime": [{"path": str(hook)}]}
    own.write("true")
    name = own.new_id()
    command = [own.program, "--root", str(own.root), "--systemd-cgroup", "create", name]
    with subprocess.Popen(command, cwd=own.bundle, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as creator:
        wait_for((own.bundle / "reached").exists, "the hook to run", seconds=60)
        creator.send_signal(signal.SIGKILL)
    own.ok("delete", "--force", name)
    wait_for(lambda: not known(unit_of(own)), "the scope to go")
    assert not directory_of(own).exists()
    with suppress(ProcessLookupError):
        os.kill(
            int((own.bundle / "reached").read_text()), signal.SIGKILL
        )  # the hook was the creator's child, not the container's


@pytest.mark.parametrize("path", ["/wtest/c1", "a:b", "nonsense:a:b", "wtest--x.slice:a:b", "wtest.slice:a:b.slice"])
def test_paths_that_name_no_scope(own: Oci, path: str) -> None:
    own.config["linux"]["cgroupsPath"] = path
    done = own.run("true")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert own.ok("list", "-q") == ""


def test_the_features_document_says_so(own: Oci) -> None:
    assert json.loads(own.ok("features"))["linux"]["cgroup"]["systemd"] is True
