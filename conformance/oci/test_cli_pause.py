"""pause and resume: what a frozen container is, and what may be done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from conformance.oci.support import host, wait

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

PAUSE = pytest.mark.rule("runc: pause, resume")


@PAUSE
def test_pause(case: Case) -> None:
    """A paused container says so, and does nothing until it is resumed."""
    host.need_controller("freezer")
    name = case.start("sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done")
    case.until_printed("2")
    case.ok("pause", name)
    assert case.status() == "paused"
    before = case.printed()
    assert case.printed() == before
    case.ok("resume", name)
    assert case.status() == "running"
    wait.wait_for(lambda: case.printed() != before, "the container to go on")


@PAUSE
def test_pause_created(case: Case) -> None:
    """A created container that is paused says so however often it is asked, cannot be started, and can when it is resumed."""
    host.need_controller("freezer")
    name = case.create("true")
    case.ok("pause", name)
    assert [case.status() for _ in range(12)] == ["paused"] * 12
    case.fails("start", name)
    case.ok("resume", name)
    assert case.status() == "created"
    case.ok("start", name)
    case.until("stopped")


@PAUSE
def test_kill_paused_created(case: Case) -> None:
    """A created container that is paused can be killed."""
    host.need_controller("freezer")
    name = case.create("true")
    case.ok("pause", name)
    case.ok("kill", name, "KILL")
    if case.status() == "paused":
        case.ok("resume", name)
    case.until("stopped")


@PAUSE
@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_pause_unknown(case: Case, verb: str) -> None:
    """A container that does not exist is an error."""
    case.fails(verb, "judge-nobody")


@PAUSE
@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_pause_wrong_state(case: Case, verb: str) -> None:
    """To pause a stopped container, or resume a running one, is an error."""
    if verb == "pause":
        name = case.start("true")
        case.until("stopped")
    else:
        name = case.sleeper()
    case.fails(verb, name)


@PAUSE
def test_exec_paused(case: Case) -> None:
    """exec refuses a paused container: its process would not run."""
    host.need_controller("freezer")
    name = case.sleeper()
    case.ok("pause", name)
    case.fails("exec", name, "true")
    case.ok("resume", name)


@PAUSE
def test_exec_ignore_paused(case: Case) -> None:
    """exec --ignore-paused waits with the container."""
    host.need_controller("freezer")
    name = case.sleeper()
    case.ok("pause", name)
    process = case.popen("exec", "--ignore-paused", name, "echo", "late")
    case.ok("resume", name)
    assert process.communicate(timeout=15)[0] == "late\n"
