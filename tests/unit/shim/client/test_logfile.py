"""Reading CRI log files: partial entries, tails, times, rotation while somebody follows."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from shim.client import logfile
from shim.client.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _line(number: int, tag: str = "F", stream: str = "stdout") -> bytes:
    return f"2026-01-02T03:04:{number:02}.123456789Z {stream} {tag} line {number}\n".encode()


def test_parse_keeps_bytes() -> None:
    line = logfile.parse(b"2026-01-02T03:04:05.1Z stderr F \xff  two spaces \n")
    assert line is not None
    assert (line.stream, line.text, line.whole) == ("stderr", b"\xff  two spaces \n", True)


def test_partial_entries_join() -> None:
    line = logfile.parse(_line(1, "P"))
    assert line is not None
    assert not line.whole
    assert line.text == b"line 1"


@pytest.mark.parametrize("raw", [b"", b"\n", b"garbage\n", b"2026 stdin F x\n", b"a b\n"])
def test_parse_refuses_garbage(raw: bytes) -> None:
    assert logfile.parse(raw) is None


def test_read_leaves_an_unfinished_entry(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(_line(1) + _line(2)[:-1])
    assert [line.text for line in logfile.read(str(path))] == [b"line 1\n"]


def test_read_without_a_file(tmp_path: Path) -> None:
    assert list(logfile.read(str(tmp_path / "none"))) == []


def test_tail_counts_long_lines_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(_line(1) + _line(2, "P") + _line(3, "P") + _line(4))
    assert [line.text for line in logfile.tail(logfile.read(str(path)), 1)] == [b"line 2", b"line 3", b"line 4\n"]
    assert list(logfile.tail(logfile.read(str(path)), 0)) == []


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("1h30m", NOW - timedelta(minutes=90)),
        ("2d", NOW - timedelta(days=2)),
        ("2026-01-02T03:04:05.123456789Z", NOW.replace(microsecond=123456)),
        ("2026-01-02T03:04:05", NOW),
    ],
)
def test_since(word: str, expected: datetime) -> None:
    assert logfile.parse_since(word, NOW) == expected


@pytest.mark.parametrize("word", ["", "yesterday", "5", "5m junk", "1x"])
def test_since_refuses(word: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        logfile.parse_since(word, NOW)


def test_since_filters(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(_line(number) for number in range(10)))
    start = logfile.moment("2026-01-02T03:04:07Z")
    assert [line.text for line in logfile.since(logfile.read(str(path)), start)] == [b"line 7\n", b"line 8\n", b"line 9\n"]


def _running_for(looks: int) -> Callable[[], bool]:
    left = iter([True] * looks)
    return lambda: next(left, False)


def test_follow_ends_with_the_container(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(_line(1))
    assert [line.text for line in logfile.follow(str(path), _running_for(0))] == [b"line 1\n"]


def test_follow_crosses_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(_line(1))
    ended = threading.Event()

    def write() -> None:
        with path.open("ab") as file:
            file.write(_line(2))
        path.rename(tmp_path / "log.1")
        with (tmp_path / "log.1").open("ab") as file:
            file.write(_line(3))  # the writer has not reopened yet
        path.write_bytes(_line(4))
        ended.set()

    seen = []
    writer = threading.Thread(target=write)
    for line in logfile.follow(str(path), lambda: not ended.is_set()):
        seen.append(line.text)
        if len(seen) == 1:
            writer.start()
    writer.join()
    assert seen == [b"line 1\n", b"line 2\n", b"line 3\n", b"line 4\n"]


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_what_was_put_in_the_place_of_a_log(tmp_path: Path, kind: str) -> None:
    """A pod with the log directory as a volume leads nobody who reads logs to another file, and lets nobody wait."""
    secret, path = tmp_path / "secret", tmp_path / "0.log"
    secret.write_text("2026-01-01T00:00:00Z stdout F secret\n")
    {"link": lambda: path.symlink_to(secret), "pipe": lambda: os.mkfifo(path), "directory": path.mkdir}[kind]()
    for reading in (logfile.read(str(path)), logfile.follow(str(path), lambda: False)):
        with pytest.raises(ClientError, match="cannot read"):
            next(iter(reading))
