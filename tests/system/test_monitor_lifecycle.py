"""A pod's monitor with each OCI runtime: the life of containers, exec, failures, and what survives wherryd."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from shim.errors import AlreadyExists, DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, Unavailable, WherryError
from shim.monitor.client import MonitorClient
from shim.monitor.protocol import OUTPUT_LIMIT, ContainerCreate, ExecRequest, Exited, Oom, StartFailed
from tests.support.monitors import PodHarness, crun_wrapper, exit_of, gone, open_fds, running_pod
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = pytest.mark.system

RUNTIMES = ("internal", "runc", "crun")


@pytest.fixture(params=RUNTIMES)
async def pod(request: pytest.FixtureRequest, short_dir: Path, tool: Callable[[str], str]) -> AsyncIterator[PodHarness]:
    handler = ""
    if request.param == "runc":
        handler = tool("runc")
    elif request.param == "crun":
        handler = crun_wrapper(short_dir, tool("crun"))
    async with running_pod(short_dir, handler, "the-pod") as harness:
        yield harness
    assert not harness.state_dir.exists()


async def run_command(pod: PodHarness, container_id: str, *args: str, seconds: float = 10) -> Any:
    return await pod.monitor.exec_sync(ExecRequest(container_id=container_id, process={"args": list(args)}, timeout_s=seconds))


def log_of(request: Any) -> list[tuple[str, str, str]]:
    """Give (stream, tag, text) of each line of a container's log."""
    with open(request.log_path, encoding="utf-8") as log:
        return [tuple(line.rstrip("\n").split(" ", 3)[1:]) for line in log]  # type: ignore[misc] - three words a line, by the format


async def test_from_create_to_delete(pod: PodHarness) -> None:
    request = pod.request("sh", "-c", "echo out; echo err >&2; hostname; printf end; exit 3")
    pid = await pod.monitor.create(request)
    (listed,) = await pod.monitor.containers()
    assert (listed.id, listed.pid, listed.status) == (request.container_id, pid, "created")
    assert not log_of(request)
    started = await pod.monitor.start(request.container_id)
    event = await asyncio.wait_for(pod.exited(request.container_id), 10)
    assert (event.pid, event.exit_code, event.signal, event.oom_killed) == (pid, 3, 0, False)
    lines = log_of(request)
    assert [line for line in lines if line[0] == "stdout"] == [
        ("stdout", "F", "out"), ("stdout", "F", "the-pod"), ("stdout", "P", "end"),
    ]  # fmt: skip
    assert [line for line in lines if line[0] == "stderr"] == [("stderr", "F", "err")]
    record = json.loads((pod.state_dir / "exits" / f"{request.container_id}.json").read_text())
    assert record["exit_code"] == 3
    assert record["started_at_ns"] == started < record["exited_at_ns"]
    (listed,) = await pod.monitor.containers()
    assert listed.status == "stopped"
    assert listed.exit is not None
    assert listed.exit.exit_code == 3
    await pod.monitor.kill(request.container_id, signal.SIGTERM)  # no error: it has ended
    await pod.monitor.delete(request.container_id)
    await pod.monitor.delete(request.container_id)
    assert await pod.monitor.containers() == []
    assert os.listdir(pod.state_dir / "exits") == os.listdir(pod.state_dir / "containers") == []
    with pytest.raises(NotFound, match=request.container_id):
        await pod.monitor.kill(request.container_id, signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_death_by_signal(pod: PodHarness, number: int) -> None:
    request = await pod.run("sh", "-c", 'trap "exit 41" TERM; echo ready; while true; do sleep 0.05; done')
    await asyncio.to_thread(wait_for, lambda: log_of(request), "the trap")
    await pod.monitor.kill(request.container_id, number)
    event = await asyncio.wait_for(pod.exited(request.container_id), 10)
    assert (event.exit_code, event.signal) == ((41, 0) if number == signal.SIGTERM else (137, 9))


async def test_default_signals_reach_the_container(pod: PodHarness) -> None:
    """Python ignores SIGPIPE, and an ignored signal would stay ignored through execve(2)."""
    request = await pod.run("sh", "-c", "grep -i sigign /proc/self/status || cat /proc/self/status")
    assert (await asyncio.wait_for(pod.exited(request.container_id), 10)).exit_code == 0
    ignored = [text for _stream, _tag, text in log_of(request) if text.startswith("SigIgn")]
    assert ignored
    of_the_c_library = 0b11 << 31  # 32 and 33, which posix_spawn(3), and so make(1), ignores in its children
    assert int(ignored[0].split()[1], 16) & ~of_the_c_library == 0


async def test_created_but_never_started(pod: PodHarness) -> None:
    request = pod.request("true")
    pid = await pod.monitor.create(request)
    with pytest.raises(AlreadyExists, match=request.container_id):
        await pod.monitor.create(request)
    with pytest.raises(FailedPrecondition, match="created, not running"):
        await run_command(pod, request.container_id, "true")
    await pod.monitor.delete(request.container_id)
    assert gone(pid)


async def start(pod: PodHarness, request: ContainerCreate) -> None:
    """Other runtimes refuse at create what the built-in one refuses at start."""
    await pod.monitor.create(request)
    await pod.monitor.start(request.container_id)


@pytest.mark.parametrize(
    ("program", "code", "text"),
    [("no-such-program", 127, "no-such-program"), ("/no/such", 127, "/no/such"), ("/etc/plain", 126, "denied")],
)
async def test_a_program_that_cannot_be_executed(pod: PodHarness, program: str, code: int, text: str) -> None:
    request = pod.request(program)
    with pytest.raises(StartFailed, match=text) as caught:
        await start(pod, request)
    assert caught.value.exit_code == code
    assert caught.value.reason == "ContainerCannotRun"
    for listed in await pod.monitor.containers():  # where create succeeded, the end is on record
        assert listed.exit is not None
        assert (listed.exit.exit_code, listed.exit.message) == (code, str(caught.value))
    await pod.monitor.delete(request.container_id)


async def test_a_bundle_that_is_wrong(pod: PodHarness) -> None:
    def break_mount(config: dict[str, Any]) -> None:
        config["mounts"].append({"destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["bind"]})

    request = pod.request("true", change=break_mount)
    with pytest.raises(WherryError, match="/no/such/source"):
        await pod.monitor.create(request)
    assert await pod.monitor.containers() == []
    before = len(pod.open_fds())
    for _ in range(3):
        with pytest.raises(WherryError):
            await pod.monitor.create(pod.request("true", change=break_mount))
    assert len(pod.open_fds()) == before


async def test_exec(pod: PodHarness) -> None:
    request = await pod.run("sleep", "1000")
    result = await run_command(pod, request.container_id, "sh", "-c", "echo out; echo err >&2; exit 4")
    assert (result.exit_code, result.stdout, result.stderr) == (4, b"out\n", b"err\n")
    killed = await run_command(pod, request.container_id, "sh", "-c", "kill -9 $$")
    assert killed.exit_code == 137
    with pytest.raises(StartFailed) as caught:
        await run_command(pod, request.container_id, "no-such-program")
    assert caught.value.exit_code == 127
    with pytest.raises(NotFound):
        await run_command(pod, "0" * 64, "true")
    together = await asyncio.gather(*(run_command(pod, request.container_id, "echo", str(n)) for n in range(8)))
    assert [result.stdout for result in together] == [f"{n}\n".encode() for n in range(8)]


async def test_exec_output_is_capped_and_complete_below_the_cap(pod: PodHarness) -> None:
    request = await pod.run("sleep", "1000")
    many = await run_command(pod, request.container_id, "seq", "1", "200000")
    assert many.stdout == b"".join(b"%d\n" % n for n in range(1, 200001))
    huge = await run_command(pod, request.container_id, "sh", "-c", "head -c 20000000 /dev/zero; echo end >&2", seconds=60)
    assert huge.stdout == bytes(OUTPUT_LIMIT)
    assert huge.stderr == b"end\n"


async def test_exec_timeout_kills_the_whole_tree(pod: PodHarness) -> None:
    request = await pod.run("sleep", "1000")
    marker = "1234567"
    script = f"sleep {marker} & (sleep {marker} & sleep {marker}) & setsid sleep {marker} & sleep {marker}"
    with pytest.raises(DeadlineExceeded, match=r"timed out after 0\.5 s"):
        await run_command(pod, request.container_id, "sh", "-c", script, seconds=0.5)
    assert processes_with(marker) == []
    assert (await run_command(pod, request.container_id, "echo", "fine")).stdout == b"fine\n"


async def test_exec_timeout_also_kills_who_left_session_and_parent(pod: PodHarness) -> None:
    request = await pod.run("sleep", "1000")
    with pytest.raises(DeadlineExceeded):
        await run_command(pod, request.container_id, "sh", "-c", "(setsid sleep 3456789 &) ; sleep 3456789", seconds=0.5)
    assert processes_with("3456789") == []


async def test_a_cancelled_exec_is_killed(pod: PodHarness) -> None:
    request = await pod.run("sleep", "1000")
    task = asyncio.create_task(run_command(pod, request.container_id, "sh", "-c", "sleep 7654321; true", seconds=100))
    await asyncio.to_thread(wait_for, lambda: len(processes_with("7654321")) == 2, "the exec'd sleep")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(wait_for, lambda: not processes_with("7654321"), "its end")


async def test_a_grandchild_that_keeps_the_output_open_does_not_hold_up_the_exec(pod: PodHarness) -> None:
    request = await pod.run("sleep", "1000")
    result = await asyncio.wait_for(run_command(pod, request.container_id, "sh", "-c", "sleep 500 & echo done", seconds=30), 5)
    assert (result.exit_code, result.stdout) == (0, b"done\n")


def processes_with(word: str) -> list[int]:
    """Give the live processes with `word` in their arguments, this one excepted."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as cmdline:
                    if word.encode() in cmdline.read() and not gone(int(name)):
                        found.append(int(name))
            except OSError:
                continue
    return found


async def test_oom(pod: PodHarness) -> None:
    def limit(config: dict[str, Any]) -> None:
        config["linux"]["resources"] = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}

    request = await pod.run("sh", "-c", "exec tail /dev/zero", change=limit)
    seen: list[Any] = []
    async with asyncio.timeout(30):
        async for event in pod.monitor.events:
            seen.append(event)
            if isinstance(event, Exited):
                break
    assert seen[-1].oom_killed
    assert seen[-1].exit_code == 137
    assert any(isinstance(event, Oom) and event.container_id == request.container_id for event in seen)


async def test_terminal(pod: PodHarness) -> None:
    request = await pod.run("sh", "-c", "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo is a tty", terminal=True)
    assert (await asyncio.wait_for(pod.exited(request.container_id), 10)).exit_code == 0
    assert [(stream, text.rstrip("\r")) for stream, _tag, text in log_of(request)] == [("stdout", "is a tty")]


async def test_a_new_client_finds_all(pod: PodHarness) -> None:
    """wherryd was killed: its successor connects by the path and knows what happened meanwhile."""
    running = await pod.run("sh", "-c", "i=0; while true; do echo $i; i=$((i+1)); sleep 0.02; done")
    ended = await pod.run("sh", "-c", "sleep 0.2; exit 5")
    await pod.monitor.close()
    with pytest.raises(Unavailable):
        await pod.monitor.containers()
    exits = pod.state_dir / "exits" / f"{ended.container_id}.json"
    await asyncio.to_thread(wait_for, exits.exists, "the exit record")
    lines = len(log_of(running))
    await asyncio.to_thread(wait_for, lambda: len(log_of(running)) > lines, "the log to flow")
    pod.monitor = await MonitorClient.connect(pod.socket)
    assert (pod.monitor.pid, pod.monitor.pod_id) == (pod.pid, pod.pod_id)
    found = {listed.id: listed for listed in await pod.monitor.containers()}
    assert found[running.container_id].status == "running"
    record = found[ended.container_id].exit
    assert record is not None
    assert record.exit_code == 5
    assert await pod.monitor.namespaces() == pod.namespaces
    second = await MonitorClient.connect(pod.socket)
    await second.kill(running.container_id, signal.SIGKILL)
    for client in (pod.monitor, second):
        assert (await asyncio.wait_for(exit_of(client, running.container_id), 10)).exit_code == 137
    await second.close()
    assert [int(text) for _stream, tag, text in log_of(running) if tag == "F"] == list(range(len(log_of(running))))


async def test_teardown_with_everything_running(pod: PodHarness) -> None:
    pids = [await pod.monitor.create(pod.request("sleep", "1000")) for _ in range(2)]
    request = await pod.run("sh", "-c", "trap '' TERM; while true; do sleep 1; done")
    assert request
    with pytest.raises(FailedPrecondition, match="3 containers"):
        await pod.monitor.shutdown()
    await asyncio.wait_for(pod.monitor.teardown_pod(), 20)
    assert all(map(gone, pids))
    assert await pod.monitor.namespaces() is None
    await pod.monitor.teardown_pod()


async def test_a_shared_pid_namespace(pod: PodHarness) -> None:
    await pod.monitor.teardown_pod()
    pins = await pod.setup(pid=True)
    assert pins.reaper_pid
    assert os.readlink(f"/proc/{pins.reaper_pid}/cwd") == "/"
    assert os.listdir(f"/proc/{pins.reaper_pid}/root") == []
    assert open_fds(pins.reaper_pid) == []
    await pod.run("sleep", "1111")
    orphans = await pod.run("sh", "-c", "sleep 2222 & ps -o pid,comm; exit 0")
    assert (await asyncio.wait_for(pod.exited(orphans.container_id), 10)).exit_code == 0
    names = {text.split()[-1] for _stream, _tag, text in log_of(orphans)}
    assert {"wherry-reaper", "sleep", "ps"} <= names, "containers see each other"
    await asyncio.to_thread(wait_for, lambda: not processes_with("2222"), "what the container left to be killed")


async def test_bad_orders(pod: PodHarness) -> None:
    request = pod.request("true")
    with pytest.raises(FailedPrecondition, match="already"):
        await pod.setup()
    with pytest.raises(InvalidArgument, match="plain name"):
        await pod.monitor._call("create", container_id="../x", bundle=request.bundle, state_root="/s")
    await pod.monitor.create(request)
    with pytest.raises(InvalidArgument, match="signal"):
        await pod.monitor.kill(request.container_id, 99)
    with pytest.raises(WherryError, match="no operation 'fly'"):
        await pod.monitor._call("fly", id=request.container_id)
