"""ExecSync, and what a container's log says."""

from __future__ import annotations

import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from conformance.cri.subject import Code, log_texts, refused, wait_log
from shim.gen.runtime.v1 import api_pb2
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from conformance.cri.subject import Pod, Subject

LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}(Z|[+-]\d\d:\d\d) (stdout|stderr) [PF] ")
RUNS = {
    "output": ("echo out; echo err >&2", b"out\n", b"err\n", 0),
    "nothing": ("true", b"", b"", 0),
    "exit code": ("exit 42", b"", b"", 42),
    "highest exit code": ("exit 255", b"", b"", 255),
    "killed": ("kill -9 $$", b"", b"", 137),
    "bytes": ("printf '\\000\\377\\n'", b"\x00\xff\n", b"", 0),
    "no standard input": ("cat", b"", b"", 0),
    "environment": ("echo $PATH", b"/bin:/usr/bin\n", b"", 0),
    "directory": ("pwd", b"/\n", b"", 0),
    "user": ("id -u", b"0\n", b"", 0),
}


@pytest.mark.parametrize("name", RUNS)
def test_run(subject: Subject, sleeper: str, name: str) -> None:
    script, stdout, stderr, code = RUNS[name]
    found = subject.cri.execute(sleeper, "sh", "-c", script)
    assert (found.stdout, found.stderr, found.exit_code) == (stdout, stderr, code)


def test_a_megabyte(subject: Subject, sleeper: str) -> None:
    assert len(subject.cri.execute(sleeper, "head", "-c", str(1 << 20), "/dev/zero").stdout) == 1 << 20


def test_timeout(subject: Subject, sleeper: str) -> None:
    started = time.monotonic()
    message = refused(lambda: subject.cri.execute(sleeper, "sleep", "54321", timeout=1), Code.DEADLINE_EXCEEDED)
    assert 0.9 < time.monotonic() - started < 9
    assert message
    assert "54321" not in _processes(subject, sleeper)


def _processes(subject: Subject, container: str) -> str:
    return subject.cri.execute(container, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout.decode()


def test_timeout_kills_the_children(subject: Subject, sleeper: str) -> None:
    script = "sleep 64321 & sleep 64322"
    refused(lambda: subject.cri.execute(sleeper, "sh", "-c", script, timeout=1), Code.DEADLINE_EXCEEDED)
    wait_for(lambda: "6432" not in _processes(subject, sleeper), "the children to be gone")


def test_a_child_that_keeps_the_output(subject: Subject, sleeper: str) -> None:
    started = time.monotonic()
    found = subject.cri.execute(sleeper, "sh", "-c", "sleep 30 & echo done", timeout=20)
    assert (found.stdout, found.exit_code) == (b"done\n", 0)
    assert time.monotonic() - started < 15


def test_no_command_is_refused(subject: Subject, sleeper: str) -> None:
    refused(lambda: subject.cri.execute(sleeper))


def test_unknown_command_is_refused(subject: Subject, sleeper: str) -> None:
    refused(lambda: subject.cri.execute(sleeper, "nope-nope"))


def test_exited_container_is_refused(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.finish(("true",)).id
    refused(lambda: subject.cri.execute(container, "true"))


def test_many_at_once(subject: Subject, sleeper: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda number: subject.cri.execute(sleeper, "echo", str(number)).stdout, range(16))
        assert [int(one) for one in found] == list(range(16))


def test_cancelled_run_is_gone(subject: Subject, sleeper: str) -> None:
    request = api_pb2.ExecSyncRequest(container_id=sleeper, cmd=["sleep", "74321"])
    call = subject.cri.runtime.ExecSync.future(request, timeout=30)
    wait_for(lambda: "74321" in _processes(subject, sleeper), "the command to run")
    call.cancel()
    wait_for(lambda: "74321" not in _processes(subject, sleeper), "the command to be gone")


def test_a_container_that_ends_ends_the_run(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.run()
    ended = threading.Event()

    def run() -> None:
        with pytest.raises((grpc.RpcError, AssertionError)):
            assert subject.cri.execute(container, "sleep", "84321", timeout=25).exit_code == 0
        ended.set()

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: "84321" in _processes(subject, container), "the command to run")
    subject.cri.stop(container)
    assert ended.wait(10)
    thread.join()


def test_log_lines(shared_pod: Pod) -> None:
    status = shared_pod.finish(("sh", "-c", "echo one; echo two >&2; printf three"))
    with open(status.log_path, encoding="utf-8") as log:
        lines = log.read().splitlines()
    assert all(LINE.match(line) for line in lines), lines
    assert sorted(log_texts(status.log_path)) == ["stderr/F two\n", "stdout/F one\n", "stdout/P three"] or sorted(
        log_texts(status.log_path)
    ) == ["stderr/F two\n", "stdout/F one\n", "stdout/F three\n"]


def test_a_long_line_is_split(shared_pod: Pod) -> None:
    status = shared_pod.finish(("sh", "-c", "head -c 40000 /dev/zero | tr '\\0' x; echo"))
    texts = log_texts(status.log_path)
    assert len(texts) > 1
    assert {text[:8] for text in texts[:-1]} == {"stdout/P"}
    assert texts[-1].startswith("stdout/F")
    assert "".join(text[9:] for text in texts) == "x" * 40000 + "\n"


def test_a_log_in_a_directory_of_its_own(shared_pod: Pod) -> None:
    status = shared_pod.finish(("echo", "here"), log_path="sub/0.log", name="deep")
    assert "here" in wait_log(status.log_path, "here")


def test_no_log_path(shared_pod: Pod) -> None:
    order = shared_pod.order(("echo", "nowhere"))
    order.log_path = ""
    container = shared_pod.cri.create(shared_pod.id, order, shared_pod.config)
    shared_pod.cri.start(container)
    assert shared_pod.cri.wait_exit(container).exit_code == 0


def test_log_of_a_terminal(shared_pod: Pod) -> None:
    status = shared_pod.finish(("sh", "-c", "echo out; echo err >&2"), tty=True)
    assert {text.partition(" ")[0] for text in log_texts(status.log_path)} == {"stdout/F"}


def test_reopened_log(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.run(("sh", "-c", "n=0; while :; do echo line $n; n=$((n+1)); sleep 0.02; done"))
    path = subject.cri.status(container).log_path
    wait_log(path, "line", 5)
    os.rename(path, f"{path}.old")
    subject.cri.runtime.ReopenContainerLog(api_pb2.ReopenContainerLogRequest(container_id=container), timeout=10)
    wait_log(path, "line", 5)
    subject.cri.stop(container)
    lines = [int(text.split()[-1]) for name in (f"{path}.old", path) for text in log_texts(name)]
    assert lines == list(range(len(lines)))


def test_reopen_of_an_exited_container_is_refused(subject: Subject, shared_pod: Pod) -> None:
    request = api_pb2.ReopenContainerLogRequest(container_id=shared_pod.finish(("true",)).id)
    refused(lambda: subject.cri.runtime.ReopenContainerLog(request, timeout=10))


def test_log_outlives_the_container(subject: Subject, shared_pod: Pod) -> None:
    status = shared_pod.finish(("echo", "kept"))
    subject.cri.remove(status.id)
    assert not os.path.exists(status.log_path) or "kept" in "".join(log_texts(status.log_path))
