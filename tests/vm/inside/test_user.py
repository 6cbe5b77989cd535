"""--systemd-cgroup without root, beside runc: a user's own systemd makes the scope, in the part of the cgroups that is his."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.wait import wait_for
from tests.system.oci_node import OURS, RUNTIMES
from tests.system.rootless_node import FIRST, UID, USER, Rootless, sailor
from tests.vm.inside.systemd import CGROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.rootless_node import Sailor

__all__ = ["sailor"]
pytestmark = pytest.mark.vm

MEBIBYTE = 1 << 20
HOME = f"user.slice/user-{UID}.slice/user@{UID}.service"
RUN = Path(f"/run/user/{UID}")


class Aboard(Rootless):
    """A runtime in the hands of a user whose systemd runs."""

    def __init__(self, runtime: str, folder: Path, who: Sailor) -> None:
        super().__init__(runtime, folder, who)
        self.prefix = who.prefix(XDG_RUNTIME_DIR=str(RUN), HOME="/tmp")
        self.options = ["--systemd-cgroup"]
        self.map((0, UID, 1), (1, FIRST, 1000))

    def say(self, *command: str) -> str:
        """Run any command of the user's."""
        done = subprocess.run([*self.prefix, *command], check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def show(self, unit: str, *names: str) -> dict[str, str]:
        text = self.say("systemctl", "--user", "show", unit, *(f"--property={name}" for name in names))
        return dict(line.partition("=")[::2] for line in text.splitlines())

    def known(self, unit: str) -> bool:
        return self.show(unit, "LoadState")["LoadState"] == "loaded"


@pytest.fixture(scope="module", autouse=True)
def manager(sailor: Sailor) -> Iterator[None]:
    """Have the user's systemd run although he is not logged in, with the units it will not stop again."""
    subprocess.run(["loginctl", "enable-linger", USER], check=True)
    wait_for((RUN / "bus").exists, "the user's bus", seconds=30)
    command = [*sailor.prefix(XDG_RUNTIME_DIR=str(RUN)), "systemctl", "--user", "start", "user.slice", "dbus.service"]
    subprocess.run(command, check=True)
    yield
    subprocess.run(["loginctl", "disable-linger", USER], check=True)
    wait_for(lambda: not RUN.exists(), "the user's systemd to end", seconds=60)


def _aboard(runtime: str, rootfs: Path, who: Sailor) -> Iterator[Aboard]:
    os.chmod(rootfs.parent, 0o711)
    node = Aboard(runtime, rootfs.parent, who)
    try:
        yield node
    finally:
        node.close()
        node.say("systemctl", "--user", "stop", "wtest-crew.slice", "wtest.slice")


@pytest.fixture(params=[runtime for runtime in RUNTIMES if runtime != "crun"])
def aboard(request: pytest.FixtureRequest, busybox_rootfs: Path, sailor: Sailor) -> Iterator[Aboard]:
    yield from _aboard(request.param, busybox_rootfs, sailor)


@pytest.fixture
def own(busybox_rootfs: Path, sailor: Sailor) -> Iterator[Aboard]:
    yield from _aboard(OURS, busybox_rootfs, sailor)


def cgroup_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::/")


def test_the_life_of_a_user_s_scope(aboard: Aboard) -> None:
    """The test's own cgroup is the system's: only systemd can move a process from there."""
    aboard.config["linux"]["cgroupsPath"] = "wtest-crew.slice:wt:scope"
    aboard.config["linux"]["resources"] = {"memory": {"limit": 64 * MEBIBYTE}, "pids": {"limit": 30}}
    name = aboard.start("sleep", "1000")
    pid, unit = aboard.state(name)["pid"], "wt-scope.scope"
    path = f"{HOME}/wtest.slice/wtest-crew.slice/{unit}"
    assert cgroup_of(pid) == path
    told = aboard.show(unit, "Slice", "Delegate", "MemoryMax", "TasksMax", "ControlGroup")
    assert told == {
        "Slice": "wtest-crew.slice",
        "Delegate": "yes",
        "MemoryMax": str(64 * MEBIBYTE),
        "TasksMax": "30",
        "ControlGroup": f"/{path}",
    }
    assert (CGROUPS / path / "memory.max").read_text().strip() == str(64 * MEBIBYTE)
    aboard.ok("update", "--memory", "80M", "--pids-limit", "-1", name)
    assert aboard.show(unit, "MemoryMax", "TasksMax") == {"MemoryMax": str(80 * MEBIBYTE), "TasksMax": "infinity"}
    assert (CGROUPS / path / "memory.max").read_text().strip() == str(80 * MEBIBYTE)
    aboard.ok("pause", name)
    aboard.wait_status(name, "paused")
    aboard.ok("resume", name)
    aboard.ok("exec", name, "true")
    aboard.ok("kill", name, "KILL")
    aboard.wait_status(name, "stopped")
    aboard.ok("delete", name)
    assert not aboard.known(unit)
    assert not (CGROUPS / path).exists()


def test_an_exec_is_placed_in_the_scope(own: Aboard) -> None:
    """runc leaves it where the caller is."""
    name = own.start("sleep", "1000")
    path = cgroup_of(own.state(name)["pid"])
    assert path == f"{HOME}/user.slice/wherry-{name}.scope"
    assert own.ok("exec", name, "cat", "/proc/self/cgroup").strip() == f"0::/{path}"
    own.say("mkdir", f"{CGROUPS}/{path}/child")
    assert own.ok("exec", "--cgroup", "child", name, "cat", "/proc/self/cgroup").strip() == f"0::/{path}/child"


def test_within_the_user_s_own_cgroups_nobody_need_be_asked(own: Aboard) -> None:
    own.prefix = [*own.prefix, "systemd-run", "--user", "--scope", "--quiet"]
    name = own.start("sleep", "1000")
    path = f"{HOME}/user.slice/wherry-{name}.scope"
    assert cgroup_of(own.state(name)["pid"]) == path
    assert own.ok("exec", name, "cat", "/proc/self/cgroup").strip() == f"0::/{path}"


def test_without_a_bus_the_error_says_what_to_set(own: Aboard) -> None:
    own.prefix, usual = [*own.prefix, "env", "-u", "XDG_RUNTIME_DIR"], own.prefix
    done = own.run("true")
    own.prefix = usual
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "DBUS_SESSION_BUS_ADDRESS" in done.stderr
    assert own.ok("list", "-q") == ""


def test_a_controller_the_user_was_not_given(own: Aboard) -> None:
    own.config["linux"]["resources"] = {"hugepageLimits": [{"pageSize": "2MB", "limit": 2 * MEBIBYTE}]}
    done = own.run("true")
    assert done.returncode == 1
    assert "hand down the controller hugetlb" in done.stderr
    assert own.ok("list", "-q") == ""
    assert not (CGROUPS / HOME / f"user.slice/wherry-{own.ids[-1]}.scope").exists()
