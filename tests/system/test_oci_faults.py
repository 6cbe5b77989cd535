"""What fails leaves nothing, whoever fails and whenever: a step of the creator, init, or the whole creator killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.wait import wait_for
from tests.system.test_oci_root import bind

if TYPE_CHECKING:
    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system

STEPS = (
    "first_state",
    "save",
    "open_sources",
    "_fork",
    "_save_init",
    "_serve_init",
    "compile_filter",
    "runtime_hooks",
    "set_limits",
    "write_pid_file",
)
"""Functions of the creator, in their order; one test ends the creator before, one after each of them."""

CREATE = """
import os, sys
from runtime import api
from runtime.errors import RuntimeFault
from runtime.launch import creator

name, when, how, bundle, root, container = sys.argv[1:]
real = getattr(creator, name)

def end():
    if how == "kill":
        os.kill(os.getpid(), 9)
    raise (RuntimeFault if when == "before" else LookupError)("as the test wants it")

def replaced(*arguments, **keywords):
    if when == "before":
        end()
    result = real(*arguments, **keywords)
    if not (name == "_fork" and result == 0):
        end()
    return result

setattr(creator, name, replaced)
try:
    api.create(api.CreateRequest(container_id=container, state_root=root, bundle=bundle, pid_file=bundle + "/pid"))
except (RuntimeFault, LookupError) as fault:
    print(fault, *getattr(fault, "__notes__", ()))
    sys.exit(9)
"""


def prepare(node: Oci, *, user_namespace: bool) -> None:
    hook = {"path": "/bin/true", "args": ["true"]}
    node.config["hooks"] = {"createRuntime": [hook], "createContainer": [hook]}
    node.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    node.config["mounts"].append(bind(node.bundle, "/dev/bundle"))
    if user_namespace:
        from tests.system.test_oci_namespaces import in_user_namespace

        in_user_namespace(node)
    node.write("sleep", "100")


def create(node: Oci, step: str, when: str, how: str) -> tuple[str, subprocess.CompletedProcess[str]]:
    name = node.new_id()
    arguments = [sys.executable, "-c", CREATE, step, when, how, str(node.bundle), str(node.root), name]
    with (node.bundle / "said").open("w+") as said:  # a pipe would stay open as long as init
        done = subprocess.run(arguments, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        said.seek(0)
        done.stdout = said.read()
    return name, done


def processes_of(name: str) -> list[int]:
    """Give the processes in the cgroups of a container, wherever those lie."""
    found = []
    for folder, folders, _ in os.walk("/sys/fs/cgroup"):
        if name in folders:
            with open(f"{folder}/{name}/cgroup.procs", encoding="ascii") as file:
                found += [int(pid) for pid in file.read().split()]
    return found


@pytest.mark.parametrize("user_namespace", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_failing_step_is_undone(ours: Oci, step: str, when: str, user_namespace: bool) -> None:
    prepare(ours, user_namespace=user_namespace)
    name, done = create(ours, step, when, "raise")
    assert done.returncode == 9, done.stdout
    assert "as the test wants it" in done.stdout
    assert "not undone" not in done.stdout
    assert not (ours.root / name).exists()
    assert processes_of(name) == []


@pytest.mark.parametrize("user_namespace", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_killed_creator_leaves_what_delete_can_clean(ours: Oci, step: str, when: str, user_namespace: bool) -> None:
    prepare(ours, user_namespace=user_namespace)
    name, done = create(ours, step, when, "kill")
    assert done.returncode == -signal.SIGKILL
    waits_at_the_gate = step == "write_pid_file" or (step, when) == ("_serve_init", "after")
    if waits_at_the_gate:
        assert ours.state(name)["status"] in ("creating", "created")
    else:
        wait_for(lambda: not processes_of(name), "init to follow its creator")
        assert ours.state(name)["status"] == "stopped"
    ours.ok("delete", "--force", name)
    assert not (ours.root / name).exists()


def test_init_that_is_killed_fails_the_create(ours: Oci) -> None:
    hook = """pid=$(sed 's/.*"pid":\\([0-9]*\\).*/\\1/'); kill -9 $pid"""
    ours.config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", hook], "env": ["PATH=/bin:/usr/bin"]}]}
    ours.write("true")
    name = ours.new_id()
    done = ours.call("create", name)
    assert done.returncode != 0
    assert "init" in done.stderr
    assert not (ours.root / name).exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 2**40, "hard": 2**40}]}, "resource limit"),
        ({"oomScoreAdj": -1000}, "oom_score_adj"),
        ({"cwd": "/proc/version"}, "/proc/version"),
        ({"apparmorProfile": "wherry-none"}, "AppArmor"),
    ],
)
def test_what_the_kernel_refuses_is_named(ours: Oci, change: dict[str, Any], words: str) -> None:
    ours.config["process"] |= change
    done = ours.run("true")
    assert done.returncode != 0
    assert words in done.stderr


def test_a_state_from_before_a_reboot_is_deleted_and_who_has_its_numbers_now_lives(ours: Oci) -> None:
    name = ours.start("sleep", "100")
    path = ours.root / name / "state.json"
    record = path.read_text()
    ours.ok("delete", "--force", name)
    (ours.root / name).mkdir()
    with subprocess.Popen(["sleep", "100"]) as other:
        numbers = {"pid": other.pid, "creator_pid": other.pid}
        path.write_text(json.dumps(json.loads(record) | numbers))
        assert ours.state(name)["status"] == "stopped"
        ours.ok("delete", name)
        assert not (ours.root / name).exists()
        assert other.poll() is None
        other.kill()


@pytest.mark.skipif(os.path.exists("/sys/fs/selinux"), reason="this host has SELinux")
def test_a_mount_label_without_selinux_is_named(ours: Oci) -> None:
    ours.config["linux"]["mountLabel"] = "system_u:object_r:container_file_t:s0"
    done = ours.run("true")
    assert done.returncode == 1
    assert "SELinux is not enabled" in done.stderr


def test_a_cgroup_limit_that_cannot_be_is_undone(ours: Oci) -> None:
    ours.config["linux"]["resources"] = {"cpu": {"cpus": "4000-4001"}}
    done = ours.run("true")
    assert done.returncode != 0
    assert "cpuset" in done.stderr


def test_a_state_file_that_is_damaged_can_be_removed(ours: Oci) -> None:
    name = ours.start("sleep", "100")
    ours.ok("kill", name, "KILL")
    ours.wait_status(name, "stopped")
    path = ours.root / name / "state.json"
    good = path.read_text()
    path.write_text("{")
    assert ours.call("state", name).returncode != 0
    assert name not in ours.ok("list", "--quiet")
    path.write_text(good)
    ours.ok("delete", name)
    (ours.root / name).mkdir()
    (ours.root / name / "state.json").write_text("{")
    ours.ok("delete", "--force", name)
    assert not (ours.root / name).exists()


def test_intel_rdt_is_detected(ours: Oci) -> None:
    if os.path.isdir("/sys/fs/resctrl/info"):
        pytest.skip("this machine has it")
    ours.config["linux"]["intelRdt"] = {"l3CacheSchema": "L3:0=f"}
    done = ours.run("true")
    assert done.returncode == 1
    assert "Intel RDT is not enabled" in done.stderr
    name = ours.new_id()
    assert "not enabled" in ours.call("update", "--l3-cache-schema", "L3:0=f", name).stderr
