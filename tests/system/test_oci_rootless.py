"""`wherry-oci` for a user without privileges, beside runc and crun: namespaces, ids, cgroups where they may be written."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from runtime.apply.cgroup import detect, from_paths
from tests.system.oci_node import OURS, RUNTIMES
from tests.system.rootless_node import FIRST, UID, Rootless, sailor
from tests.system.test_oci_notify import agent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.rootless_node import Sailor

__all__ = ["sailor"]
pytestmark = pytest.mark.system
BOTH = ((0, UID, 1), (1, FIRST, 2000))


def _node(runtime: str, rootfs: Path, who: Sailor) -> Iterator[Rootless]:
    os.chmod(rootfs.parent, 0o711)
    node = Rootless(runtime, rootfs.parent, who)
    try:
        yield node
    finally:
        node.close()


@pytest.fixture(params=RUNTIMES)
def node(request: pytest.FixtureRequest, busybox_rootfs: Path, sailor: Sailor) -> Iterator[Rootless]:
    yield from _node(request.param, busybox_rootfs, sailor)


@pytest.fixture(params=[OURS, "runc"])
def strict(request: pytest.FixtureRequest, busybox_rootfs: Path, sailor: Sailor) -> Iterator[Rootless]:
    """Give the two that refuse alike; crun leaves out in silence what it may not do."""
    yield from _node(request.param, busybox_rootfs, sailor)


@pytest.fixture
def mine(busybox_rootfs: Path, sailor: Sailor) -> Iterator[Rootless]:
    yield from _node(OURS, busybox_rootfs, sailor)


def test_a_single_id_is_mapped_without_any_tool(node: Rootless) -> None:
    said = node.shell("id -u; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; touch /proc/self/comm")
    assert said.split() == ["0", *["0", str(UID), "1"] * 2, "deny"]


def test_ranges_are_mapped_by_newuidmap(node: Rootless) -> None:
    node.map(*BOTH)
    node.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    said = node.shell("id -u; id -g; cat /proc/self/uid_map; cat /proc/self/setgroups")
    assert said.split() == ["1000", "1000", *(str(number) for line in BOTH for number in line), "allow"]


def test_the_life_of_a_container(node: Rootless) -> None:
    node.map(*BOTH)
    node.write("sleep", "100")
    name = node.new_id()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    assert node.call("create", name, **quiet).returncode == 0
    assert node.state(name)["status"] == "created"
    if node.runtime != "crun":  # which lets nobody in before start
        assert node.ok("exec", name, "id", "-u") == "0\n"
    node.ok("start", name)
    assert node.ok("exec", "--user", "7:8", name, "sh", "-c", "id -u; id -g").split() == ["7", "8"]
    assert node.call("exec", name, "sh", "-c", "exit 5").returncode == 5
    assert [one["id"] for one in json.loads(node.ok("list", "--format", "json"))] == [name]
    assert node.call("delete", name).returncode != 0
    node.ok("kill", name, "KILL")
    node.wait_status(name, "stopped")
    node.ok("delete", name)
    assert not os.listdir(node.root)


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_an_agent_answers_for_the_container(mine: Rootless, *, no_new_privileges: bool) -> None:
    """Its listener lies in a process with another id than the user's, who may take it out of there all the same."""
    mine.map(*BOTH)
    mine.config["process"] |= {"noNewPrivileges": no_new_privileges, "user": {"uid": 1000, "gid": 1000}}
    with agent(mine, "mkdir", "mkdirat") as answering:
        os.chmod(answering.path, 0o666)
        done = mine.run("mkdir", "/tmp/x")
        assert "No medium found" in done.stderr
        (message,) = answering.states
    assert message["state"]["status"] == "creating"


def test_devices_are_the_hosts(node: Rootless) -> None:
    nodes = "for name in null zero full random urandom tty; do stat -c %t:%T /dev/$name; done"
    said = node.shell(f"{nodes}; head -c 3 /dev/zero | wc -c")
    assert said.split() == ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "3"]


def test_ptmx_is_the_container_s_whoever_asks_for_it(mine: Rootless) -> None:
    mine.config["linux"]["devices"] = [{"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2}]
    assert mine.shell("readlink /dev/ptmx; true <> /dev/ptmx && echo opened").split() == ["pts/ptmx", "opened"]


def test_what_spec_writes_runs(node: Rootless) -> None:
    node.ok("spec", "--rootless")
    document = json.loads((node.bundle / "config.json").read_text())
    document["process"] |= {"terminal": False, "args": ["sh", "-c", "id -u; ls /sys/fs/cgroup >/dev/null && echo seen"]}
    (node.bundle / "config.json").write_text(json.dumps(document))
    done = node.call("run", node.new_id())
    assert (done.returncode, done.stdout.split()) == (0, ["0", "seen"]), done.stderr


def test_a_terminal(node: Rootless) -> None:
    node.config["process"]["terminal"] = True
    node.write("tty")
    command = [*node.prefix, node.program, "--root", str(node.root), "run", node.new_id()]
    words = " ".join(f"'{word}'" for word in command)
    done = subprocess.run(["script", "-qec", words, "/dev/null"], capture_output=True, text=True, cwd=node.bundle, check=False)
    assert "/dev/pts/0" in done.stdout, done.stdout + done.stderr


def test_a_source_only_root_can_reach_is_refused(node: Rootless) -> None:
    secret = node.bundle / "secret"
    (secret / "inside").mkdir(parents=True)
    secret.chmod(0o700)
    node.config["mounts"].append({"destination": "/tmp", "type": "bind", "source": f"{secret}/inside", "options": ["rbind"]})
    done = node.run("true")
    assert done.returncode != 0
    assert "denied" in done.stderr.lower()


def test_a_bind_keeps_what_the_host_locked(mine: Rootless) -> None:
    """What the user asks is added to the flags of the host's mount, which are locked in his namespace."""
    mine.config["mounts"].append({"destination": "/tmp", "type": "bind", "source": "/dev/shm", "options": ["rbind", "ro"]})
    assert "Read-only" in mine.shell("touch /tmp/x 2>&1 || true")


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "no user namespace": ({"namespaces": [{"type": "mount"}]}, "user namespace"),
    "groups": ({"groups": [5]}, "additional groups"),
    "an unmapped uid": ({"uid_option": "uid=9999"}, "cannot specify uid="),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_user_cannot_have_is_refused_by_name(strict: Rootless, case: str) -> None:
    changes, wanted = CASES[case]
    if "namespaces" in changes:
        del strict.config["hostname"]
        strict.config["linux"] |= {"namespaces": changes["namespaces"], "uidMappings": [], "gidMappings": []}
    if "groups" in changes:
        strict.config["process"]["user"]["additionalGids"] = changes["groups"]
    if "uid_option" in changes:
        strict.config["mounts"][1]["options"].append(changes["uid_option"])
    done = strict.run("true")
    assert done.returncode == 1
    assert wanted in done.stderr, done.stderr
    assert not strict.root.exists() or not os.listdir(strict.root)


def test_ids_that_are_not_his_are_refused(node: Rootless) -> None:
    node.map((0, UID, 1), (1, 5_000_000, 10))
    done = node.run("true")
    assert done.returncode != 0
    if node.ours:
        assert "newuidmap exited with 1" in done.stderr
        assert not os.listdir(node.root)


def test_limits_need_a_cgroup(strict: Rootless) -> None:
    strict.config["linux"]["resources"] = {"pids": {"limit": 10}}
    done = strict.run("true")
    assert done.returncode == 1
    wanted = "cannot set pids limit: container could not join or create cgroup"
    assert (wanted if detect().kind in ("v1", "hybrid") else "pids" if strict.ours else "") in done.stderr
    assert not os.listdir(strict.root)


def test_a_cgroup_asked_for_must_be_writable(strict: Rootless) -> None:
    strict.config["linux"]["cgroupsPath"] = f"/wherry-{secrets.token_hex(4)}"
    done = strict.run("true")
    assert done.returncode == 1
    assert "unable to apply cgroup configuration" in done.stderr
    assert "permission denied" in done.stderr
    assert not os.listdir(strict.root)


def test_cgroups_are_not_optional_when_they_are_not_to_be(strict: Rootless) -> None:
    strict.write("true")
    done = strict.call("--rootless", "false", "run", strict.new_id())
    assert done.returncode == 1
    assert "permission denied" in done.stderr


def test_without_a_cgroup_nothing_can_be_paused(mine: Rootless) -> None:
    name = mine.start("sleep", "100")
    for command in ("pause", "ps"):
        done = mine.call(command, name)
        assert done.returncode == 1
        assert "cgroups not configured for container" in done.stderr
    mine.ok("kill", "--all", name, "KILL")
    mine.wait_status(name, "stopped")


@pytest.mark.parametrize("user", [True, False])
def test_cgroups_may_be_left_alone(mine: Rootless, user: bool) -> None:
    """As crun spells it and podman asks for it with --cgroups=disabled."""
    if not user:
        mine.prefix = []
    mine.write("cat", "/proc/self/cgroup")
    done = mine.call("--cgroup-manager", "disabled", "run", mine.new_id())
    with open("/proc/self/cgroup") as own:
        assert (done.returncode, done.stdout) == (0, own.read()), done.stderr


def test_a_shared_pid_namespace_is_warned_about(strict: Rootless) -> None:
    strict.config["linux"]["namespaces"] = [{"type": kind} for kind in ("mount", "user")]
    strict.config["mounts"] = [one for one in strict.config["mounts"] if one["type"] != "proc"]
    strict.config["mounts"].append({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]})
    strict.config.pop("hostname")
    done = strict.run("true")
    assert done.returncode == 0, done.stderr
    if strict.ours:
        assert "Creating a rootless container with no cgroup and no private pid namespace" in done.stderr


@pytest.fixture
def delegated() -> Iterator[str]:
    """Give the path of a cgroup that is the user's, in every hierarchy he can be given one in."""
    name = f"wherry-{secrets.token_hex(4)}"
    layout = detect()
    made = [(one.key, f"{one.mount}/{name}") for one in layout.hierarchies]
    group = from_paths(tuple(made))
    for key, folder in made:
        os.mkdir(folder)
        if "cpuset" in key.split(","):
            for file in ("cpuset.cpus", "cpuset.mems"):
                with open(f"{os.path.dirname(folder)}/{file}") as above, open(f"{folder}/{file}", "w") as own:
                    own.write(above.read())
                os.chown(f"{folder}/{file}", UID, UID)
        for file in ("", "cgroup.procs", "tasks", "cgroup.subtree_control"):
            with suppress(FileNotFoundError):
                os.chown(os.path.join(folder, file), UID, UID)
    try:
        yield f"/{name}/box"
    finally:
        group.remove()


@pytest.mark.skipif(detect().kind == "v2", reason="the user cannot leave the root's cgroup of a pure v2 hierarchy")
def test_a_delegated_cgroup_is_used(strict: Rootless, delegated: str) -> None:
    strict.config["linux"] |= {"cgroupsPath": delegated, "resources": {"pids": {"limit": 20}}}
    name = strict.start("sleep", "100")
    inside = strict.ok("exec", name, "cat", "/proc/self/cgroup")
    assert f":{delegated}\n" in inside
    assert json.loads(strict.ok("ps", "--format", "json", name)) == [strict.state(name)["pid"]]
    mount = next(one.mount for one in detect().hierarchies if "pids" in one.controllers)
    with open(f"{mount}{delegated}/pids.max") as file:
        assert file.read() == "20\n"
    strict.ok("update", "--pids-limit", "30", name)
    with open(f"{mount}{delegated}/pids.max") as file:
        assert file.read() == "30\n"
    strict.ok("pause", name)
    assert strict.state(name)["status"] == "paused"
    strict.ok("resume", name)
    strict.ok("delete", "--force", name)
    assert not os.path.exists(f"{mount}{delegated}")


def test_state_lies_below_the_users_runtime_directory(mine: Rootless, sailor: Sailor) -> None:
    mine.write("sleep", "100")
    name = mine.new_id()
    command = [*mine.prefix, mine.program, "create", name]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=mine.bundle, check=True)
    try:
        assert os.listdir(sailor.runtime_dir / "wherry/oci") == [name]
    finally:
        assert mine.raw("delete", "--force", name).returncode == 0
    assert os.listdir(sailor.runtime_dir / "wherry/oci") == []


def test_root_of_a_user_namespace(strict: Rootless) -> None:
    """What podman does without root: the runtime is root of a namespace already, and the container has none of its own."""
    strict.config["linux"]["namespaces"] = [{"type": kind} for kind in ("mount", "pid", "ipc", "uts")]
    for name in ("uidMappings", "gidMappings"):
        del strict.config["linux"][name]
    strict.write("sleep", "100")
    name = strict.new_id()
    call = f'"{strict.program}" --root "{strict.bundle}/nested"'
    script = (
        f"{call} create {name} >/dev/null 2>&1 </dev/null && {call} start {name} && {call} exec {name} stat -c %t:%T /dev/null"
    )
    script += f" && {call} delete --force {name}"
    nest = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script]
    done = subprocess.run([*strict.prefix, *nest], capture_output=True, text=True, cwd=strict.bundle, check=False)
    assert (done.returncode, done.stdout) == (0, "1:3\n"), done.stderr
