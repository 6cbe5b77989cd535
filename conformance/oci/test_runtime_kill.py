"""The operation that sends a signal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from conformance.oci.support import host, wait

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("runtime.md#kill")
TELL = (
    'for s in HUP INT QUIT USR1 USR2 TERM CONT WINCH; do trap "echo got $s" $s; done; echo ready; while :; do sleep 0.03; done'
)


@pytest.mark.parametrize("signal", ["HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "CONT", "WINCH"])
def test_signal_by_name(case: Case, signal: str) -> None:
    """The named signal arrives at the container's process."""
    name = case.start("sh", "-c", TELL)
    case.until_printed("ready")
    case.ok("kill", name, signal)
    case.until_printed(f"got {signal}")


@pytest.mark.parametrize("word", ["SIGUSR1", "10", "usr1"])
def test_signal_words(case: Case, word: str) -> None:
    """A signal may be named with SIG, by number, and in small letters."""
    name = case.start("sh", "-c", TELL)
    case.until_printed("ready")
    case.ok("kill", name, word)
    case.until_printed("got USR1")


def test_default_is_term(case: Case) -> None:
    """Without a signal it is SIGTERM."""
    name = case.start("sh", "-c", TELL)
    case.until_printed("ready")
    case.ok("kill", name)
    case.until_printed("got TERM")


def test_real_time_signal(case: Case) -> None:
    """Signals above the classic ones arrive too."""
    name = case.start("sh", "-c", "trap 'echo got it' 34; echo ready; while :; do sleep 0.03; done")
    case.until_printed("ready")
    case.ok("kill", name, "34")
    case.until_printed("got it")


def test_kill_ends_it(case: Case) -> None:
    """SIGKILL ends the process, and its parent learns of it as of any killed process."""
    name = case.sleeper()
    pid = case.pid()
    case.ok("kill", name, "KILL")
    assert wait.exit_code(pid) == 137
    assert case.status() == "stopped"


def test_created(case: Case) -> None:
    """A created container can be killed."""
    name = case.create("true")
    case.ok("kill", name, "KILL")
    case.until("stopped")
    case.ok("delete", name)


def test_stopped(case: Case) -> None:
    """To signal a stopped container is an error."""
    name = case.start("true")
    case.until("stopped")
    case.fails("kill", name, "TERM")
    assert case.status() == "stopped"


def test_unknown(case: Case) -> None:
    """To signal a container that does not exist is an error."""
    case.fails("kill", "judge-nobody", "TERM")


def test_without_id(case: Case) -> None:
    """Kill without an id is an error."""
    case.fails("kill")


@pytest.mark.parametrize("word", ["NOSUCH", "SIGNOSUCH", "-1", "1000"])
def test_invalid_signal(case: Case, word: str) -> None:
    """A word that is no signal is an error and has no effect."""
    name = case.sleeper()
    case.fails("kill", name, "--", word) if word.startswith("-") else case.fails("kill", name, word)
    assert case.status() == "running"


def test_only_the_container(case: Case) -> None:
    """A signal goes to its container and no other."""
    first = case.sleeper()
    second = case.sleeper()
    case.ok("kill", first, "KILL")
    case.until("stopped", first)
    assert case.status(second) == "running"


def test_children_end_with_their_namespace(case: Case) -> None:
    """When the first process of a pid namespace ends, all in it do."""
    name = case.start("sh", "-c", "sleep 300 & sleep 300 & echo ready; wait")
    case.until_printed("ready")
    children = host.read(f"/proc/{case.pid()}/task/{case.pid()}/children").split()
    assert len(children) == 2
    case.ok("kill", name, "KILL")
    case.until("stopped")
    wait.wait_for(lambda: not any(host.read(f"/proc/{pid}/cmdline") for pid in children), "the children to end")
