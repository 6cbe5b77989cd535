"""Steps of the runtime in the monitor's loop: they end, fail, take too long or are cancelled, and are always taken back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runtime.errors import StateFault
from shim import process
from shim.errors import DeadlineExceeded, FailedPrecondition
from shim.reactor import Cancelled, Reactor

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

FIRST_WAIT = "waiting"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe2(os.O_CLOEXEC)
    yield ends
    for fd in ends:
        os.close(fd)


def steps(reader: int, seen: list[str], failure: Exception | None = None) -> Generator[int, None, str]:
    try:
        seen.append(FIRST_WAIT)
        yield reader
        seen.append(os.read(reader, 1).decode())
        if failure is not None:
            raise failure
        return "result"
    finally:
        seen.append("closed")


def test_goes_on_when_the_named_descriptor_can_be_read(reactor: Reactor, pipe: tuple[int, int]) -> None:
    seen: list[str] = []
    task = reactor.spawn(process.drive(reactor, steps(pipe[0], seen), 10.0))
    assert seen == [FIRST_WAIT]
    os.write(pipe[1], b"x")
    reactor.turn(5.0)
    assert task.result() == "result"
    assert seen == [FIRST_WAIT, "x", "closed"]


def test_a_fault_comes_as_the_error_a_child_would_have_sent(reactor: Reactor, pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"x")
    task = reactor.spawn(process.drive(reactor, steps(pipe[0], [], StateFault("it is paused")), 10.0))
    reactor.turn(5.0)
    with pytest.raises(FailedPrecondition, match="it is paused"):
        task.result()


def test_what_takes_too_long_is_closed(reactor: Reactor, pipe: tuple[int, int]) -> None:
    seen: list[str] = []
    task = reactor.spawn(process.drive(reactor, steps(pipe[0], seen), 0.01))
    reactor.turn(5.0)
    with pytest.raises(DeadlineExceeded, match=r"0\.01 s"):
        task.result()
    assert seen == [FIRST_WAIT, "closed"]


def test_a_cancelled_one_is_closed_and_its_descriptor_no_longer_watched(reactor: Reactor, pipe: tuple[int, int]) -> None:
    seen: list[str] = []
    task = reactor.spawn(process.drive(reactor, steps(pipe[0], seen), 10.0))
    task.cancel()
    with pytest.raises(Cancelled):
        task.result()
    assert seen == [FIRST_WAIT, "closed"]
    os.write(pipe[1], b"x")
    reactor.turn(0)
    assert os.read(pipe[0], 1) == b"x"
