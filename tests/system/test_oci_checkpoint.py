"""checkpoint and restore with a real criu: what a container had it has again, and what fails says why and leaves it running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import dying_criu
from tests.support.criu import failing_criu, need_criu
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system

COUNT = "echo begun >/tmp/mark; i=0; while :; do i=$((i+1)); echo $i >/shared/count; sleep 0.05; done"


@pytest.fixture
def criu() -> str:
    """Give a criu that works on this kernel."""
    return need_criu()


class Saved:
    """A container that counts into a bound folder, in pipes of ours."""

    def __init__(self, oci: Oci, criu: str) -> None:
        self.oci = oci
        self.criu = criu
        self.shared = oci.bundle / "shared"
        self.shared.mkdir()
        self.images = oci.bundle / "images"
        oci.config["mounts"] += [
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/shared", "type": "bind", "source": "shared", "options": ["rbind", "rw"]},
        ]
        oci.config["linux"]["maskedPaths"] = ["/proc/keys", "/proc/acpi", "/sys/firmware"]
        oci.config["linux"]["readonlyPaths"] = ["/proc/sys"]

    def count(self) -> int:
        try:
            return int((self.shared / "count").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def start(self, *args: str) -> str:
        name = self.oci.start(*args or ("sh", "-c", COUNT))
        if not args:
            wait_for(lambda: self.count() > 2, "the container to count")
        return name

    def call(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.oci.call("--criu", self.criu, *words, **options)

    def checkpoint(self, name: str, *more: str) -> None:
        done = self.call("checkpoint", "--image-path", str(self.images), *more, name)
        assert done.returncode == 0, done.stderr

    def restore(self, name: str, *more: str) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        done = self.call("restore", "--detach", "--image-path", str(self.images), *more, name, **quiet)
        assert done.returncode == 0, (self.images / "restore.log").read_text()[-2000:]

    def goes_on(self) -> None:
        before = self.count()
        wait_for(lambda: self.count() > before + 2, "the container to go on counting")


@pytest.fixture
def saved(ours: Oci, criu: str) -> Saved:
    return Saved(ours, criu)


def inside(oci: Oci, name: str, *args: str) -> str:
    return oci.ok("exec", name, *args)


@pytest.mark.parametrize("mode", ["ignore", "soft"])
def test_a_container_goes_on_where_it_was(saved: Saved, mode: str) -> None:
    oci = saved.oci
    oci.config["linux"]["namespaces"].append({"type": "cgroup"})
    name = saved.start()
    mounts = {line.split(" ")[4] for line in inside(oci, name, "cat", "/proc/self/mountinfo").splitlines()}
    saved.checkpoint(name, "--manage-cgroups-mode", mode)
    assert oci.call("state", name).returncode == 1
    counted = saved.count()
    assert counted > 2
    saved.restore(name, "--manage-cgroups-mode", mode, "--pid-file", str(oci.bundle / "pid"))
    state = oci.state(name)
    assert (state["status"], state["pid"]) == ("running", int((oci.bundle / "pid").read_text()))
    saved.goes_on()
    assert saved.count() > counted
    assert inside(oci, name, "cat", "/tmp/mark") == "begun\n"
    assert {line.split(" ")[4] for line in inside(oci, name, "cat", "/proc/self/mountinfo").splitlines()} == mounts
    assert inside(oci, name, "cat", "/proc/keys") == ""
    assert inside(oci, name, "hostname") == "boat\n"
    assert "LOOPBACK,UP" in inside(oci, name, "ip", "addr", "show", "lo")
    cgroups = [line.split(":", 2)[2] for line in Path(f"/proc/{state['pid']}/cgroup").read_text().splitlines()]
    assert any(path.endswith(name) for path in cgroups)


def test_a_second_checkpoint_of_a_restored_container(saved: Saved) -> None:
    name = saved.start()
    for _ in range(2):
        saved.checkpoint(name, "--manage-cgroups-mode", "ignore")
        saved.restore(name, "--manage-cgroups-mode", "ignore")
        saved.goes_on()
        inside(saved.oci, name, "true")


def test_leave_running_lets_it_run_and_restores_under_another_name(saved: Saved) -> None:
    oci = saved.oci
    name = saved.start("sh", "-c", "echo begun >/tmp/mark; while :; do sleep 0.05; done")
    wait_for(lambda: oci.call("exec", name, "cat", "/tmp/mark").stdout == "begun\n", "the mark")
    saved.checkpoint(name, "--leave-running", "--manage-cgroups-mode", "ignore")
    other = oci.new_id()
    saved.restore(other, "--manage-cgroups-mode", "ignore")
    for one in (name, other):
        assert oci.state(one)["status"] == "running"
        assert inside(oci, one, "cat", "/tmp/mark") == "begun\n"


def test_a_paused_container_can_be_saved_and_stays_paused(saved: Saved) -> None:
    name = saved.start()
    saved.oci.ok("pause", name)
    saved.checkpoint(name, "--leave-running", "--manage-cgroups-mode", "ignore")
    assert saved.oci.state(name)["status"] == "paused"
    saved.oci.ok("resume", name)
    saved.goes_on()


def test_pipes_are_replaced_by_those_of_the_restore(saved: Saved) -> None:
    oci = saved.oci
    oci.write("sh", "-c", "while read line; do echo got $line; done")
    name = oci.new_id()
    first, second = pipes(), pipes()
    run = {"stdin": first[0][0], "stdout": first[1][1], "stderr": first[2][1]}
    assert oci.call("run", "--detach", name, **run).returncode == 0
    assert ask(first) == b"got ping\n"
    saved.checkpoint(name, "--manage-cgroups-mode", "ignore")
    again = {"stdin": second[0][0], "stdout": second[1][1], "stderr": second[2][1]}
    done = saved.call("restore", "-d", "--image-path", str(saved.images), "--manage-cgroups-mode", "ignore", name, **again)
    assert done.returncode == 0
    assert ask(second) == b"got ping\n"
    for pair in first + second:
        for fd in pair:
            os.close(fd)


Pipes = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def pipes() -> Pipes:
    return os.pipe(), os.pipe(), os.pipe()


def ask(three: Pipes) -> bytes:
    os.write(three[0][1], b"ping\n")
    return os.read(three[1][0], 100)


def test_a_namespace_of_others_is_entered_and_its_content_left_alone(saved: Saved, netns: Callable[[], str]) -> None:
    path = netns()
    for one in saved.oci.config["linux"]["namespaces"]:
        if one["type"] == "network":
            one["path"] = path
    name = saved.start()
    saved.checkpoint(name, "--manage-cgroups-mode", "ignore")
    saved.restore(name, "--manage-cgroups-mode", "ignore")
    saved.goes_on()
    pid = saved.oci.state(name)["pid"]
    assert os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat(path).st_ino


@pytest.fixture
def netns(short_dir: Path) -> Any:
    """Make network namespaces that are pinned by a bind mount."""
    made: list[str] = []

    def make() -> str:
        path = str(short_dir / f"net{len(made)}")
        Path(path).touch()
        subprocess.run(["unshare", f"--net={path}", "true"], check=True)
        made.append(path)
        return path

    yield make
    for path in made:
        subprocess.run(["umount", path], check=True)


def test_a_connection_within_a_network_namespace_of_its_own_goes_on(saved: Saved) -> None:
    """Its addresses are those of the loopback device, which is up again before a socket is bound."""
    listen = (
        "tail -f /dev/null | nc -l -p 4711 >/shared/heard & until grep -q ':1267 .* 0A' /proc/net/tcp*; do sleep 0.02; done; "
    )
    talk = "(i=0; while :; do i=$((i+1)); echo $i; echo $i >/shared/count; sleep 0.03; done) | nc 127.0.0.1 4711"
    name = saved.start("sh", "-c", listen + talk)
    wait_for(lambda: saved.count() > 2, "the connection to be used")
    saved.checkpoint(name, "--tcp-established")
    counted = saved.count()
    saved.restore(name, "--tcp-established")
    heard = saved.shared / "heard"
    wait_for(lambda: str(counted + 5) in heard.read_text().split(), "the connection to carry on")
    assert heard.read_text().split() == [str(number + 1) for number in range(len(heard.read_text().split()))]


def test_a_restore_that_fails_leaves_nothing(saved: Saved) -> None:
    name = saved.start()
    saved.checkpoint(name, "--manage-cgroups-mode", "ignore")
    (saved.images / "core-1.img").write_bytes(b"broken")
    done = saved.call("restore", "--image-path", str(saved.images), "--manage-cgroups-mode", "ignore", name)
    assert done.returncode == 1
    assert "restore container" in done.stderr
    assert "restore.log" in done.stderr
    assert json.loads(saved.oci.ok("list", "--format", "json") or "[]") in ([], None)


def test_a_checkpoint_that_fails_leaves_the_container_running(saved: Saved) -> None:
    """A terminal of a session outside is what criu refuses without --shell-job."""
    name = saved.start()
    done = saved.call("checkpoint", "--image-path", str(saved.images), "--page-server", "127.0.0.1:1", name)
    assert done.returncode == 1
    assert "criu" in done.stderr
    assert "dump.log" in done.stderr
    assert saved.oci.state(name)["status"] == "running"
    saved.goes_on()


@pytest.fixture
def dying(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> Saved:
    """Give a container for a criu that will be killed."""
    monkeypatch.setenv("CRIU", saved.criu)
    saved.criu = str(saved.oci.bundle / "criu")
    Path(saved.criu).write_text(f'#!/bin/sh\nexec {sys.executable} {dying_criu.__file__} "$@"\n')
    os.chmod(saved.criu, 0o755)
    return saved


def test_a_criu_that_is_killed_leaves_the_container_running(dying: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    name = dying.start()
    for moment in ("pre-dump", "network-lock", "post-dump"):
        monkeypatch.setenv("CRIU_DIES_AT", moment)
        done = dying.call("checkpoint", "--image-path", str(dying.images), name)
        assert done.returncode == 1
        assert "criu ended without an answer" in done.stderr
        assert dying.oci.state(name)["status"] == "running"
        dying.goes_on()


def test_a_criu_that_is_killed_leaves_nothing_half_restored(dying: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    name = dying.start()
    monkeypatch.setenv("CRIU_DIES_AT", "never")
    dying.checkpoint(name)
    for moment in ("setup-namespaces", "post-setup-namespaces", "post-restore", "pre-resume"):
        monkeypatch.setenv("CRIU_DIES_AT", moment)
        done = dying.call("restore", "--detach", "--image-path", str(dying.images), name, stdout=subprocess.DEVNULL)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "criu ended without an answer" in done.stderr
        assert not list(dying.oci.root.glob("*"))
    monkeypatch.setenv("CRIU_DIES_AT", "never")
    dying.restore(name)
    dying.goes_on()


def test_without_criu_the_error_names_it(ours: Oci) -> None:
    name = ours.start("sleep", "100")
    for words in (("checkpoint", name), ("restore", "-d", "other")):
        done = ours.call("--criu", "/nonexistent/criu", *words)
        assert done.returncode == 1
        assert "criu is not installed" in done.stderr
    assert ours.state(name)["status"] == "running"


def test_a_criu_that_does_not_know_this_kernel_is_named(ours: Oci) -> None:
    old = failing_criu()
    if not old:
        pytest.skip("the installed criu works on this kernel, or there is none")
    name = ours.start("sleep", "100")
    done = ours.call("--criu", old, "checkpoint", name)
    assert done.returncode == 1
    assert "does not work with this kernel" in done.stderr
    assert "install a newer criu" in done.stderr
    assert ours.state(name)["status"] == "running"


def test_a_container_that_does_not_run_is_refused(ours: Oci) -> None:
    ours.write("sleep", "100")
    name = ours.new_id()
    assert ours.call("create", name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    done = ours.call("checkpoint", name)
    assert done.returncode == 1
    assert "cannot be checkpointed in created state" in done.stderr
