"""The operation that runs the user's program."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support import wait

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("runtime.md#start")


def test_runs_the_program(case: Case) -> None:
    """Start runs the program of process.args."""
    case.start("echo", "hello", "from inside")
    case.until("stopped")
    assert case.printed() == "hello from inside"


def test_returns_before_the_end(case: Case) -> None:
    """Start does not wait for the program."""
    begun = time.monotonic()
    case.start("sleep", "300")
    assert time.monotonic() - begun < 20
    assert case.status() == "running"


def test_without_id(case: Case) -> None:
    """Start without an id is an error."""
    case.fails("start")


def test_unknown(case: Case) -> None:
    """Start of a container that does not exist is an error."""
    case.fails("start", "judge-nobody")


def test_running(case: Case) -> None:
    """Start of a running container is an error and has no effect on it."""
    name = case.sleeper()
    pid = case.pid()
    case.fails("start", name)
    assert case.status() == "running"
    assert case.pid() == pid


def test_stopped(case: Case) -> None:
    """Start of a stopped container is an error and has no effect on it."""
    name = case.start("sh", "-c", "echo once >> /times")
    case.until("stopped")
    case.fails("start", name)
    assert case.status() == "stopped"
    assert (case.rootfs / "times").read_text() == "once\n"


def test_same_process(case: Case) -> None:
    """The process that create made becomes the program: the pid stays."""
    name = case.create("sleep", "300")
    before = case.pid()
    case.ok("start", name)
    assert case.pid() == before


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exit_code(case: Case, code: int) -> None:
    """The program's exit code is the exit code of the container's process, for whoever is its parent."""
    case.start("sh", "-c", f"sleep 0.2; exit {code}")
    pid = case.pid()
    assert wait.exit_code(pid) == code


def test_program_absent(case: Case) -> None:
    """A program that does not exist is an error of create or of start, not a container that runs."""
    name = case.new_id()
    case.write("/bin/no-such-program")
    if case.call("create", name, stdout=None, stderr=None).returncode == 0:
        case.fails("start", name)
        wait.wait_for(lambda: case.call("state", name).returncode != 0 or case.status() == "stopped", "the container to stop")


def test_program_that_may_not_be_executed(case: Case) -> None:
    """A file without permission to execute is an error, not a container that runs."""
    (case.rootfs / "plain").write_text("#!/bin/sh\n")
    name = case.new_id()
    case.write("/plain")
    if case.call("create", name, stdout=None, stderr=None).returncode == 0:
        case.fails("start", name)


def test_caller_may_be_another(case: Case) -> None:
    """Whoever has the id may start: no state is kept in the process that created."""
    name = case.create("sh", "-c", "echo $PPID")
    case.ok("start", name, cwd="/")
    case.until("stopped")
    assert case.printed() == "0", "its parent must be outside its pid namespace"


def test_standard_streams(case: Case) -> None:
    """Without a terminal the program has the standard streams that create was given."""
    with open(case.bundle / "in", "w+", encoding="utf-8") as file:
        file.write("spoken\n")
        file.seek(0)
        case.start("sh", "-c", "cat; echo wrong >&2", stdin=file)
    case.until("stopped")
    assert case.printed() == "spoken"
    assert case.err.read_text() == "wrong\n"


@pytest.mark.rule("runtime-linux.md#file-descriptors")
def test_only_three_descriptors(case: Case) -> None:
    """Only stdin, stdout and stderr are open in the program."""
    extra, other = os.pipe()
    try:
        names = case.shell("ls /proc/self/fd", pass_fds=(extra, other))
    finally:
        os.close(extra)
        os.close(other)
    assert set(names.split()) - {"3"} == {"0", "1", "2"}, "3 is the listing's own"


@pytest.mark.rule("runtime-linux.md#dev-symbolic-links")
@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ],
)
def test_dev_links(case: Case, link: str, target: str) -> None:
    """The links of /dev to the process's own descriptors exist."""
    assert case.shell(f"readlink {link}") == target
