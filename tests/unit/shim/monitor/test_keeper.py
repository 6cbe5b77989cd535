"""What a keeper reads of a resting monitor, and what it logs in its place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from shim.monitor.keeper import Rest, Tail
from shim.monitor.logs import Clock, LogFile
from shim.monitor.rest import Luggage

if TYPE_CHECKING:
    from pathlib import Path


def test_luggage_and_rest_agree() -> None:
    luggage = Luggage()
    first, second = os.pipe()
    log = luggage.add(os.open("/dev/null", os.O_WRONLY))
    assert luggage.add(-1) == -1
    luggage.children.append(42)
    out = luggage.add_output(first, "stdout", log)
    err = luggage.add_output(second, "stderr", -1)
    assert luggage.add_output(-1, "stdout", log) == -1
    rest = Rest(luggage.pack(2.0, {"a": "ü\n"}), luggage.fds)
    assert (rest.patience, rest.children, rest.ended) == (2.0, [42], {})
    assert (rest.fd(out), rest.fd(err), rest.fd(-1)) == (first, second, -1)
    assert sorted(rest.tails) == sorted([first, second])
    assert rest.tails[first].log is not None
    assert rest.tails[second].log is None
    assert rest.state.startswith(b'{"a":')
    rest.close()


def test_nothing_to_hand_over() -> None:
    rest = Rest(Luggage().pack(64.0, {}), [])
    assert (rest.children, rest.events, rest.tails) == ([], [], {})


def test_a_tail_logs_until_the_end(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    log = LogFile(str(tmp_path / "log"))
    tail = Tail(reader, "stderr", log, Clock())
    assert tail.move()  # nothing there
    os.write(writer, b"one\ntwo\nthr")
    assert tail.move()
    os.close(writer)
    assert not tail.move()
    os.close(reader)
    log.close()
    assert [line.split(" ", 1)[1] for line in (tmp_path / "log").read_text().splitlines()] == ["stderr F one", "stderr F two"]
    assert tail.framer.pending == 3  # for the monitor that wakes


def test_a_tail_asks_for_a_monitor_when_lines_are_lost() -> None:
    reader, writer = os.pipe()
    tail = Tail(reader, "stdout", LogFile("", os.open("/dev/full", os.O_WRONLY)), Clock())
    os.write(writer, b"lost\n")
    assert not tail.move()
    assert tail.log is not None
    assert tail.log.losing
    assert tail.log.lost_bytes
    tail.log.close()
    os.close(reader)
    os.close(writer)


def test_without_a_log_output_is_dropped() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"gone\n")
    tail = Tail(reader, "stdout", None, Clock())
    assert tail.move()
    os.set_blocking(reader, False)
    assert tail.move()
    os.close(reader)
    os.close(writer)
