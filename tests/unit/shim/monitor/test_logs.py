"""The CRI log format: framing, splitting, files."""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import FailedPrecondition
from shim.monitor.logs import LINE_LIMIT, Clock, Framer, LogFile

if TYPE_CHECKING:
    from pathlib import Path

STAMP = b"2026-01-02T03:04:05.000000006Z"


def frame(chunks: list[bytes], *, finish: bool = True) -> bytes:
    framer = Framer("stdout")
    out = [buffer for chunk in chunks for buffer in framer.feed(chunk, STAMP)]
    if finish:
        out += framer.finish(STAMP)
    return b"".join(out)


def parse(log: bytes) -> bytes:
    """Give back what was written, as kubelet's reader does: P carries no line end, F does."""
    text = b""
    for line in log.split(b"\n")[:-1]:
        stamp, stream, tag, content = line.split(b" ", 3)
        assert stamp == STAMP
        assert stream == b"stdout"
        assert len(content) <= LINE_LIMIT
        assert tag in (b"P", b"F")
        text += content + (b"\n" if tag == b"F" else b"")
    return text


def test_whole_lines() -> None:
    assert frame([b"one\ntwo\n\n"]) == b"".join(STAMP + b" stdout F " + text + b"\n" for text in (b"one", b"two", b""))


def test_a_line_may_come_in_pieces() -> None:
    assert frame([b"o", b"n", b"e\ntw", b"o\n"]) == STAMP + b" stdout F one\n" + STAMP + b" stdout F two\n"


def test_the_end_without_a_line_end_is_partial() -> None:
    assert frame([b"prompt> "]) == STAMP + b" stdout P prompt> \n"


@pytest.mark.parametrize(
    ("length", "tags"), [(LINE_LIMIT - 1, b"F"), (LINE_LIMIT, b"F"), (LINE_LIMIT + 1, b"PF"), (3 * LINE_LIMIT, b"PPF")]
)
@pytest.mark.parametrize("piece", [1 << 16, 4096, 1000])
def test_long_lines_are_split(length: int, tags: bytes, piece: int) -> None:
    text = b"x" * length + b"\n"
    log = frame([text[at : at + piece] for at in range(0, len(text), piece)])
    assert bytes(line.split(b" ")[2][0] for line in log.splitlines()) == tags
    assert parse(log) == text


def test_an_endless_line_is_not_kept_in_memory() -> None:
    framer = Framer("stdout")
    for _ in range(100):
        framer.feed(b"x" * 65536, STAMP)
        assert framer.pending <= LINE_LIMIT


lines = st.tuples(  # how often, what, and the end: the text itself would be a hundred kilobytes in a report
    st.sampled_from([0, 1, 7, 100, LINE_LIMIT - 1, LINE_LIMIT, LINE_LIMIT + 1, 2 * LINE_LIMIT + 3]),
    st.sampled_from([b"a", b" ", b"\0", b"\xff", b"\r"]),
    st.sampled_from([b"\n", b"\n\n", b""]),
)


@given(st.lists(lines, max_size=8), st.lists(st.integers(1, 70000), min_size=1, max_size=8))
def test_nothing_is_lost_however_it_is_cut(parts: list[tuple[int, bytes, bytes]], sizes: list[int]) -> None:
    text = b"".join(letter * size + end for size, letter, end in parts)
    chunks, at = [], 0
    while at < len(text):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(text[at : at + size])
        at += size
    log = frame(chunks)
    assert parse(log) == text
    assert log == b"" or log.endswith(b"\n")
    assert frame(chunks) == frame([text]) if text else True


def test_clock_gives_nine_digits() -> None:
    clock = Clock()
    assert clock.stamp(1_000_000_000_000_000_007) == b"2001-09-09T01:46:40.000000007Z"
    assert clock.stamp(1_000_000_000_999_999_999) == b"2001-09-09T01:46:40.999999999Z"
    assert re.fullmatch(rb"2001-09-09T01:46:41\.\d{9}Z", clock.stamp(1_000_000_001_000_000_000))


def test_reopen_goes_on_in_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogFile(str(path))
    log.write([b"one\n"])
    path.rename(tmp_path / "log.1")
    log.write([b"two\n"])
    log.reopen()
    log.write([b"three\n"])
    log.close()
    assert (tmp_path / "log.1").read_bytes() == b"one\ntwo\n"
    assert path.read_bytes() == b"three\n"
    assert path.stat().st_mode & 0o777 == 0o640 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_reopen_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "pod").mkdir()
    log = LogFile(str(tmp_path / "pod" / "log"))
    (tmp_path / "pod").rename(tmp_path / "old")
    with pytest.raises(FileNotFoundError):
        log.reopen()
    log.write([b"still\n"])
    log.close()
    assert (tmp_path / "old" / "log").read_bytes() == b"still\n"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "victim")
    with pytest.raises(FailedPrecondition, match="symbolic link"):
        LogFile(str(tmp_path / "log"))
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("where", ["pod/main/log", "pod/log"])
def test_no_link_below_the_log_directory_is_followed(tmp_path: Path, where: str) -> None:
    """The directory itself may be reached by one: that is kubelet's affair."""
    outside, pod = tmp_path / "outside", tmp_path / "pod"
    outside.mkdir()
    (tmp_path / "real").mkdir()
    pod.symlink_to(tmp_path / "real")
    LogFile(str(pod / "fine"), below=str(pod)).close()
    (pod / "main").symlink_to(outside)
    (pod / "log").symlink_to(outside / "log")
    with pytest.raises(FailedPrecondition, match=r"leads through a symbolic link in the pod's log directory; remove it"):
        LogFile(str(tmp_path / where), below=str(pod))
    assert (os.listdir(outside), sorted(os.listdir(pod))) == ([], ["fine", "log", "main"])


def test_a_log_is_reopened_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "pod/main").mkdir(parents=True)
    log = LogFile(str(tmp_path / "pod/main/log"), below=str(tmp_path / "pod"))
    (tmp_path / "pod/main").rename(tmp_path / "pod/old")
    (tmp_path / "pod/main").symlink_to(tmp_path)
    with pytest.raises(FailedPrecondition, match="symbolic link"):
        log.reopen()
    log.write([b"still\n"])
    log.close()
    assert (tmp_path / "pod/old/log").read_bytes() == b"still\n"
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "log") if kind == "fifo" else "/dev/null"
    if kind == "fifo":
        os.mkfifo(path)
    with pytest.raises((FailedPrecondition, OSError)):
        LogFile(path)


def test_a_full_disk_is_told_once_and_does_not_block() -> None:
    log = LogFile.__new__(LogFile)
    log.path, log.lost_bytes, log._losing = "/dev/full", 0, False
    log._fd = os.open("/dev/full", os.O_WRONLY)
    told: list[str] = []
    log.on_loss = told.append
    log.write([b"a" * 10, b"\n"])
    log.write([b"b" * 5, b"\n"])
    log.close()
    assert log.lost_bytes == 17
    assert len(told) == 1
    assert "no space" in told[0].lower()


def test_a_torn_write_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up in the middle of a line."""
    log = LogFile(str(tmp_path / "log"))
    log.write([b"first\n"])

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    real_write = os.write
    monkeypatch.setattr("shim.monitor.logs.os.writev", lambda fd, buffers: real_write(fd, b"".join(buffers)[:9]))
    monkeypatch.setattr("shim.monitor.logs.os.write", full)
    log.write([b"second\nthird\n"])
    monkeypatch.undo()
    log.write([b"fourth\n"])
    log.close()
    assert (tmp_path / "log").read_bytes() == b"first\nsecond\nfourth\n"
