"""run, kill --all, delete --force, events: the rest of runc's verbs."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from conformance.oci.support import cgroups, host, wait

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

RUN = pytest.mark.rule("runc: run")
KILL = pytest.mark.rule("runc: kill")
DELETE = pytest.mark.rule("runc: delete")
EVENTS = pytest.mark.rule("runc: events")
MIB = 1 << 20


@RUN
def test_run_leaves_nothing(case: Case) -> None:
    """After `run` the container is gone."""
    case.output("true")
    case.fails("state", case.id)


@RUN
def test_run_detached(case: Case) -> None:
    """`run --detach` returns while the container runs."""
    name = case.new_id()
    case.write("sleep", "300")
    case.ok("run", "--detach", name, stdout=None, stderr=None)
    assert case.status() == "running"


@RUN
def test_run_keep(case: Case) -> None:
    """`run --keep` leaves the stopped container."""
    case.output("true", flags=("--keep",))
    assert case.status() == "stopped"
    case.ok("delete", case.id)


@RUN
def test_run_pid_file(case: Case) -> None:
    """--pid-file holds the process id, without a newline."""
    name = case.new_id()
    case.write("sleep", "300")
    case.ok("run", "--detach", "--pid-file", "a.pid", name, stdout=None, stderr=None)
    assert (case.bundle / "a.pid").read_text() == str(case.pid())


@RUN
def test_create_pid_file(case: Case) -> None:
    """So does that of create, whose path is relative to the caller's working directory."""
    name = case.new_id()
    (case.bundle / "place").mkdir()
    case.write("sleep", "300")
    case.ok(
        "create", "--bundle", str(case.bundle), "--pid-file", "a.pid", name, stdout=None, stderr=None, cwd=case.bundle / "place"
    )
    assert (case.bundle / "place/a.pid").read_text() == str(case.pid())


@RUN
def test_run_in_use(case: Case) -> None:
    """`run` with the id of a present container is an error, and that container stays."""
    name = case.sleeper()
    case.fails("run", name)
    assert case.status() == "running"


@RUN
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_run_forwards_signals(case: Case, number: signal.Signals) -> None:
    """A signal that `run` gets goes to the container."""
    name = case.new_id()
    word = number.name.removeprefix("SIG")
    case.write("sh", "-c", f"trap 'echo got; exit 9' {word}; echo ready; while :; do sleep 0.03; done")
    process = case.popen("run", name)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    said, _ = process.communicate(timeout=15)
    assert said == "got\n"
    assert process.returncode == 9


@RUN
@pytest.mark.parametrize("how", ["run", "create"])
def test_preserve_fds(case: Case, how: str) -> None:
    """--preserve-fds passes descriptors from 3 on."""
    read, write = os.pipe()
    name = case.new_id()
    case.write("sh", "-c", "head -1 <&3; ls /proc/self/fd")
    os.write(write, b"through\n")
    os.close(write)
    with open(case.out, "w", encoding="utf-8") as out, open(case.err, "w", encoding="utf-8") as err:
        streams = {"stdout": out, "stderr": err}
        done = case.call(how, "--preserve-fds", "1", name, pass_fds=(3,), preexec_fn=lambda: os.dup2(read, 3), **streams)
    os.close(read)
    assert done.returncode == 0, case.err.read_text()
    if how == "create":
        case.ok("start", name)
        case.until("stopped")
    assert case.printed().startswith("through")


@RUN
def test_listen_fds(case: Case) -> None:
    """LISTEN_FDS passes sockets, as systemd gives them."""
    name = case.new_id()
    case.write("sh", "-c", "echo $LISTEN_FDS $LISTEN_PID; test -S /proc/self/fd/3 && echo socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(case.bundle / "s"))
        case.prefix = ["sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"', "sh"]
        done = case.call("run", name, pass_fds=(3,), preexec_fn=lambda: os.dup2(server.fileno(), 3))
    assert done.stdout.split() == ["1", "1", "socket"], done.stderr


@RUN
def test_notify_socket(case: Case) -> None:
    """With NOTIFY_SOCKET the program can tell that it is ready, and the caller hears it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(case.bundle / "n"))
        server.settimeout(10)
        name = case.new_id()
        case.write("sh", "-c", 'test -S "$NOTIFY_SOCKET" && echo there; sleep 300')
        process = case.popen("run", name, env=os.environ | {"NOTIFY_SOCKET": str(case.bundle / "n")})
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"


# kill and delete


@KILL
def test_kill_all(case: Case) -> None:
    """--all reaches every process of the container."""
    case.drop_namespace("pid")
    name = case.start("sh", "-c", "sleep 300 & sleep 300 & echo ready; wait")
    case.until_printed("ready")
    procs = host.read(f"{cgroups.folder(case.pid(), 'pids')}/cgroup.procs").split()
    assert len(procs) == 3
    case.ok("kill", "--all", name, "KILL")
    case.until("stopped")
    wait.wait_for(lambda: not any(host.read(f"/proc/{pid}/cmdline") for pid in procs), "all processes to end")


@KILL
def test_kill_paused(case: Case) -> None:
    """A paused container can be killed."""
    host.need_controller("freezer")
    name = case.sleeper()
    case.ok("pause", name)
    case.ok("kill", name, "KILL")
    if case.status() == "paused":
        case.ok("resume", name)
    case.until("stopped")


@DELETE
@pytest.mark.parametrize("status", ["created", "running", "stopped", "paused"])
def test_delete_force(case: Case, status: str) -> None:
    """--force deletes a container in whatever state it is."""
    if status == "created":
        name = case.create("true")
    elif status == "stopped":
        name = case.start("true")
        case.until("stopped")
    else:
        name = case.sleeper()
    if status == "paused":
        host.need_controller("freezer")
        case.ok("pause", name)
    case.ok("delete", "--force", name)
    case.fails("state", name)


@DELETE
def test_delete_force_unknown(case: Case) -> None:
    """--force of a container that does not exist is no error."""
    case.ok("delete", "--force", "judge-nobody")


@DELETE
def test_delete_created(case: Case) -> None:
    """A created container can be deleted without --force, or refuses; it is never left half."""
    name = case.create("true")
    if case.call("delete", name).returncode == 0:
        case.fails("state", name)
    else:
        assert case.status() == "created"


@DELETE
def test_delete_after_a_reboot_of_init(case: Case) -> None:
    """A container whose process was killed behind the runtime's back is stopped, and can be deleted."""
    name = case.sleeper()
    pid = case.pid()
    os.kill(pid, signal.SIGKILL)
    case.until("stopped")
    case.ok("delete", name)


# events


@EVENTS
def test_events_stats(case: Case) -> None:
    """events --stats prints the container's figures once, as JSON."""
    case.resources(pids={"limit": 20})
    name = case.sleeper()
    event: dict[str, Any] = json.loads(case.ok("events", "--stats", name))
    assert event["type"] == "stats"
    assert event["id"] == name
    assert event["data"]["pids"]["current"] >= 1
    assert event["data"]["memory"]["usage"]["usage"] > 0
    assert event["data"]["cpu"]["usage"]["total"] > 0


@EVENTS
def test_events_interval(case: Case) -> None:
    """events prints figures at every interval."""
    name = case.sleeper()
    process = case.popen("events", "--interval", "100ms", name)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    assert [json.loads(line)["type"] for line in lines] == ["stats"] * 3


@EVENTS
def test_events_unknown(case: Case) -> None:
    """A container that does not exist is an error."""
    case.fails("events", "--stats", "judge-nobody")


@EVENTS
def test_events_oom(case: Case) -> None:
    """A process that is killed for memory is an event."""
    cgroups.need_file("memory", "memory.oom_control", "memory.events")
    case.resources(memory={"limit": 12 * MIB} | ({"swap": 12 * MIB} if host.has_swap_accounting() else {}))
    name = case.sleeper()
    process = case.popen("events", "--interval", "1h", name)
    said = process.stdout
    assert said is not None

    def told() -> bool:
        case.call("exec", name, "sh", "-c", "head -c 64m /dev/zero | tail")
        return bool(select.select([said.fileno()], [], [], 0.2)[0])

    wait.wait_for(told, "the event")
    event = json.loads(said.readline())
    assert (event["type"], event["id"]) == ("oom", name)


@EVENTS
def test_events_pressure(case: Case) -> None:
    """The figures tell how long tasks waited, where the kernel counts it (Documentation/accounting/psi.rst)."""
    name = case.sleeper()
    folder = cgroups.folder(case.pid(), "cpu")
    host.need(host.v2() and host.read(f"{folder}/cpu.pressure"), "no pressure of cgroups (CONFIG_PSI, cgroup v2)")
    data = json.loads(case.ok("events", "--stats", name))["data"]
    for part in ("cpu", "memory"):
        assert {"avg10", "avg60", "avg300", "total"} <= data[part]["psi"]["some"].keys()


@EVENTS
def test_events_end(case: Case) -> None:
    """events ends with the container, at the latest when that is deleted."""
    name = case.sleeper()
    process = case.popen("events", "--interval", "100ms", name)
    assert process.stdout is not None
    process.stdout.readline()
    case.ok("kill", name, "KILL")
    case.until("stopped")
    case.ok("delete", name)
    assert process.wait(timeout=20 * wait.PATIENCE) == 0
