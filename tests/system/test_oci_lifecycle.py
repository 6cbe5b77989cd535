"""create, start, state, kill, delete, list, ps: what a caller of any OCI runtime relies on."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from runtime.kernel import pidfd
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from tests.system.oci_node import Oci


def stat(pid: int) -> str | None:
    """Give the state letter of a process."""
    found = pidfd.stat(pid)
    return found and found[0]


pytestmark = pytest.mark.system


@pytest.mark.parametrize("code", [0, 1, 42])
def test_run_gives_the_exit_code(oci: Oci, code: int) -> None:
    done = oci.run("sh", "-c", f"echo out; echo err >&2; exit {code}")
    assert done.returncode == code
    assert done.stdout == "out\n"
    assert "err\n" in done.stderr


def test_a_signal_gives_128_and_its_number(oci: Oci) -> None:
    done = oci.run("sh", "-c", "sh -c 'kill -TERM $$'; exit $?")
    assert done.returncode == 128 + signal.SIGTERM


def test_the_life_of_a_container(oci: Oci) -> None:
    oci.config["annotations"] = {"org.example": "yes"}
    oci.write("sleep", "100")
    name = oci.new_id()
    pid_file = oci.bundle / "pid"
    quiet = {"stdout": -3, "stderr": -3}
    assert oci.call("create", "--pid-file", str(pid_file), name, **quiet).returncode == 0
    state = oci.state(name)
    assert state["status"] == "created"
    assert state["id"] == name
    assert state["bundle"] == str(oci.bundle)
    assert state["annotations"]["org.example"] == "yes"
    assert state["pid"] == int(pid_file.read_text())
    oci.ok("start", name)
    state = oci.state(name)
    assert state["status"] == "running"
    with open(f"/proc/{state['pid']}/cmdline", "rb") as file:
        assert file.read() == b"sleep\x00100\x00"
    assert state["pid"] in json.loads(oci.ok("ps", "--format", "json", name))
    assert [one["id"] for one in json.loads(oci.ok("list", "--format", "json"))] == [name]
    assert oci.call("delete", name).returncode != 0, "a running container must not be deleted without --force"
    oci.ok("kill", name, "KILL")
    oci.wait_status(name, "stopped")
    assert oci.call("kill", name, "KILL").returncode != 0
    oci.ok("delete", name)
    assert oci.call("state", name).returncode != 0


def test_a_created_container_can_be_deleted(oci: Oci) -> None:
    oci.write("sleep", "100")
    name = oci.new_id()
    assert oci.call("create", name, stdout=-3, stderr=-3).returncode == 0
    pid = oci.state(name)["pid"]
    oci.ok("delete", "--force", name)
    wait_for(lambda: stat(pid) in (None, "Z"), "init to end")


def test_a_created_container_ends_when_told_to(oci: Oci) -> None:
    if oci.runtime == "crun":
        pytest.skip("crun's init waits in C, without a handler, and so is shielded as the first of its namespace")
    oci.write("sleep", "100")
    name = oci.new_id()
    assert oci.call("create", name, stdout=-3, stderr=-3).returncode == 0
    oci.ok("kill", name)
    oci.wait_status(name, "stopped")


def test_debug_tells_the_steps_in_words_tools_look_for(oci: Oci) -> None:
    if oci.runtime == "crun":
        pytest.skip("crun has words of its own")
    oci.write("true")
    log = oci.bundle / "log"
    oci.ok("--debug", "--log", str(log), "--log-format", "json", "run", oci.new_id())
    said = [json.loads(line) for line in log.read_text().splitlines()]
    assert {one["level"] for one in said} == {"debug"}
    for words in ("nsexec container setup", "child process in init()", "init: closing the pipe to signal completion"):
        assert any(words in one["msg"] for one in said)


def test_an_id_is_taken_once(oci: Oci) -> None:
    name = oci.start("sleep", "100")
    done = oci.call("create", name)
    assert done.returncode != 0
    assert "exist" in done.stderr
    assert oci.state(name)["status"] == "running", "the first container must not be harmed"


def test_a_container_starts_once(oci: Oci) -> None:
    name = oci.start("sleep", "100")
    assert oci.call("start", name).returncode != 0
    assert oci.state(name)["status"] == "running"


@pytest.mark.parametrize("command", ["state", "start", "kill", "delete", "ps"])
def test_an_unknown_container_is_an_error(oci: Oci, command: str) -> None:
    done = oci.call(command, "nobody")
    assert done.returncode != 0
    assert "does not exist" in done.stderr or "no such" in done.stderr.lower() or "error" in done.stderr.lower()


def test_refusals_are_worded_as_callers_know_them(oci: Oci) -> None:
    if oci.runtime == "crun":
        pytest.skip("crun has its own words, and callers look for both")
    name = oci.start("sleep", "100")
    said = [
        oci.call(*words).stderr
        for words in (("state", "nobody"), ("create", name), ("start", name), ("delete", name), ("resume", name))
    ]
    oci.ok("kill", name, "KILL")
    wait_for(lambda: oci.state(name)["status"] == "stopped", "the container to stop")
    said += [oci.call(*words, name).stderr for words in (("start",), ("kill",), ("pause",))]
    known = (
        "container does not exist",
        "container with given ID already exists",
        "cannot start an already running container",
        f"cannot delete container {name} that is not stopped: running",
        "container not paused",
        "cannot start a container that has stopped",
        "container not running",
        "container not running",
    )
    assert [words for words, text in zip(known, said, strict=True) if words not in text] == [], said


@pytest.mark.parametrize("name", ["../up", "a/b", ""])
def test_an_id_is_a_plain_name(ours: Oci, name: str) -> None:
    ours.write("true")
    done = ours.call("create", name)
    assert done.returncode != 0
    assert not (ours.bundle / "up").exists()


def test_pause_and_resume(oci: Oci) -> None:
    name = oci.start("sleep", "100")
    oci.ok("pause", name)
    assert oci.state(name)["status"] == "paused"
    assert oci.call("exec", name, "true").returncode != 0
    oci.ok("resume", name)
    assert oci.state(name)["status"] == "running"
    oci.ok("pause", name)
    oci.ok("delete", "--force", name)


def test_start_is_done_by_another_process_and_waits_for_exec(ours: Oci) -> None:
    ours.write("/bin/sleep", "100")
    name = ours.new_id()
    assert ours.call("create", name, stdout=-3, stderr=-3).returncode == 0
    pid = ours.state(name)["pid"]
    assert os.readlink(f"/proc/{pid}/exe") != "/bin/sleep"
    ours.ok("start", name)
    assert os.readlink(f"/proc/{pid}/exe").endswith("/bin/sleep")


def test_a_pid_that_was_used_again_is_another_process(ours: Oci) -> None:
    name = ours.start("sleep", "100")
    path = ours.root / name / "state.json"
    record = json.loads(path.read_text())
    real = record["pid"]
    record["pid"] = os.getpid()
    path.write_text(json.dumps(record))
    assert ours.state(name)["status"] == "stopped"
    assert ours.call("kill", name, "TERM").returncode != 0
    record["pid"] = real
    path.write_text(json.dumps(record))
    assert ours.state(name)["status"] == "running"


def test_update_of_swap_alone_and_of_everything_from_a_document(oci: Oci) -> None:
    oci.config["linux"]["resources"] = {"memory": {"limit": 32 << 20}, "pids": {"limit": 20}}
    name = oci.start("sleep", "100")
    if not os.path.exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"):
        pytest.skip("no swap is accounted for here")
    with open(f"/proc/{oci.state(name)['pid']}/cgroup", encoding="ascii") as file:
        own = dict(line.strip().split(":", 2)[1:] for line in file)["memory"]
    folder = f"/sys/fs/cgroup/memory{own}"

    def limit(of: str) -> int:
        with open(f"{folder}/memory.{of}limit_in_bytes", encoding="ascii") as file:
            return int(file.read())

    oci.ok("update", "--memory-swap", str(96 << 20), name)
    assert (limit(""), limit("memsw.")) == (32 << 20, 96 << 20)
    document = json.dumps({"memory": {"limit": 48 << 20, "swap": 64 << 20, "reservation": 16 << 20}})
    oci.ok("update", "--resources", "-", name, stdin=None, input=document)
    assert (limit(""), limit("memsw."), limit("soft_")) == (48 << 20, 64 << 20, 16 << 20)
