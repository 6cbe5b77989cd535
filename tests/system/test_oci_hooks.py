"""Hooks: when, where, with what, and what their failure does."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def hook(script: str, *args: str, **more: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script, "hook", *args], "env": ["PATH=/usr/bin:/bin", "GIVEN=yes"]} | more


def test_every_kind_runs_once_in_order_with_the_state(oci: Oci) -> None:
    log = oci.bundle / "log"
    script = f'printf "%s " "$1" >> {log}; cat >> {log}; echo >> {log}'
    outside = {kind: [hook(script, kind)] for kind in KINDS if kind != "startContainer"}
    oci.config["hooks"] = outside
    oci.config["annotations"] = {"a": "b"}
    name = oci.start("sleep", "100")
    oci.ok("kill", name, "KILL")
    oci.wait_status(name, "stopped")
    oci.ok("delete", name)
    lines = [line.split(" ", 1) for line in log.read_text().splitlines() if line.strip()]
    assert [kind for kind, _ in lines] == [kind for kind in KINDS if kind in outside]
    for kind, text in lines:
        state = json.loads(text)
        assert state["id"] == name, kind
        assert state["bundle"] == str(oci.bundle), kind
        assert state["annotations"]["a"] == "b", kind


def test_hooks_run_in_the_right_namespaces(oci: Oci) -> None:
    log = oci.bundle / "log"
    oci.config["root"]["readonly"] = False
    outside = f"echo $(readlink /proc/self/ns/mnt) $(readlink /proc/self/ns/uts) >> {log}"
    inside = 'echo "inside $(hostname) $GIVEN" > /started'
    oci.config["hooks"] = {
        "createRuntime": [hook(outside)],
        "createContainer": [hook(outside)],
        "startContainer": [hook(inside)],
        "poststart": [hook(outside)],
    }
    name = oci.start("sleep", "100")
    pid = oci.state(name)["pid"]
    runtime, container, after = (line.split() for line in log.read_text().splitlines())
    host = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "uts")]
    if not oci.prefix:
        assert runtime == after == host
    assert container == [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("mnt", "uts")]
    assert (oci.rootfs / "started").read_text() == "inside boat yes\n"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_failing_hook_undoes_the_create(oci: Oci, kind: str) -> None:
    oci.config["hooks"] = {kind: [hook("echo reason of failure >&2; exit 7")]}
    oci.write("sleep", "100")
    name = oci.new_id()
    done = oci.call("create", name)
    assert done.returncode != 0
    if oci.ours:
        assert "reason of failure" in done.stderr
        assert kind in done.stderr
    assert oci.call("state", name).returncode != 0


def test_a_failing_start_hook_fails_the_start(oci: Oci) -> None:
    oci.config["hooks"] = {"startContainer": [hook("exit 7")]}
    done = oci.run("echo", "never")
    assert done.returncode != 0
    assert "never" not in done.stdout


def test_a_hook_that_takes_too_long_is_killed(oci: Oci) -> None:
    oci.config["hooks"] = {"createRuntime": [hook("exec sleep 50", timeout=1)]}
    assert oci.run("true").returncode != 0


def test_a_hook_may_be_given_months(oci: Oci) -> None:
    """More milliseconds than poll(2) can be told."""
    oci.config["hooks"] = {"createRuntime": [hook("true", timeout=10_000_000)]}
    assert oci.run("true").returncode == 0


def test_a_hook_that_cannot_be_run_is_named(oci: Oci) -> None:
    oci.config["hooks"] = {"createRuntime": [{"path": "/no/such/hook"}]}
    done = oci.run("true")
    assert done.returncode != 0
    assert oci.runtime == "crun" or "/no/such/hook" in done.stderr


def test_a_failing_poststop_hook_changes_nothing(ours: Oci) -> None:
    mark = ours.bundle / "second"
    ours.config["hooks"] = {"poststop": [hook("exit 1"), hook(f"touch {mark}")]}
    name = ours.start("sleep", "100")
    assert ours.state(name)["status"] == "running"
    ours.ok("kill", name, "KILL")
    ours.wait_status(name, "stopped")
    ours.ok("delete", name)
    assert mark.exists()


def test_the_runtime_s_hooks_see_the_container_s_root(ours: Oci) -> None:
    log = ours.bundle / "log"
    script = f"""pid=$(sed 's/.*"pid":\\([0-9]*\\).*/\\1/'); ls /proc/$pid/root{ours.rootfs}/proc/version > {log}"""
    ours.config["hooks"] = {"createRuntime": [hook(script)]}
    ours.output("true")
    assert "version" in log.read_text()


def test_a_failing_poststart_hook_stops_the_container(oci: Oci) -> None:
    if oci.runtime == "crun":
        pytest.skip("crun goes on, as runtime-spec before 1.3 said")
    oci.config["hooks"] = {"poststart": [hook("exit 0"), hook("echo no luck; exit 3")]}
    done = oci.run("sleep", "100")
    assert done.returncode == 1
    assert f"error running {'poststart ' if oci.ours else ''}hook #1" in done.stderr
    assert oci.call("state", oci.ids[-1]).returncode != 0, "run leaves nothing"
    if oci.ours:
        oci.write()
        name = oci.new_id()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        assert oci.call("create", name, **quiet).returncode == 0
        assert "no luck" in oci.call("start", name).stderr
        assert "does not exist" in oci.call("state", name).stderr


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_startcontainer_hooks_are_under_the_seccomp_profile(oci: Oci, no_new_privileges: bool) -> None:
    oci.config["process"]["noNewPrivileges"] = no_new_privileges
    oci.config["process"]["rlimits"].append({"type": "RLIMIT_CORE", "soft": 0, "hard": 0})
    oci.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}],
    }
    command = {"path": "/bin/busybox", "args": ["busybox", "mkdir", "/dev/never"]}
    oci.config["hooks"] = {"startContainer": [command]}
    done = oci.run("true")
    assert done.returncode == 1
    assert oci.runtime == "crun" or "bad system call" in done.stderr
    held = f"{sum(1 << bit for bit in (5, 10, 29)):016x}"
    command["args"] = ["busybox", "sh", "-c", f"grep -q 'CapEff:.{held}' /proc/self/status"]
    assert oci.run("true").returncode == 0, "and have the container's capabilities only"


def test_createcontainer_hooks_begin_in_the_root(oci: Oci) -> None:
    if oci.runtime == "crun":
        pytest.skip("crun's begin elsewhere")
    oci.config["hooks"] = {"createContainer": [hook("test -x ./bin/busybox && test -e ./proc/version")]}
    assert oci.output("true") == ""
