"""Reading a container's log: files of lines `RFC3339Nano stream P|F text`, as every CRI runtime writes them."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, BinaryIO

from shim.client.errors import ClientError
from shim.client.watch import DirectoryWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

LOOK = 0.5
"""Seconds between two questions whether the container still runs, while its log says nothing."""
_DURATION = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One entry of the log; `text` ends with a newline unless the entry is the beginning of a longer line."""

    time: str
    stream: str
    text: bytes

    @property
    def whole(self) -> bool:
        """Say whether the line ends here."""
        return self.text.endswith(b"\n")


def parse(raw: bytes) -> Line | None:
    """Decode one entry with its newline; None for anything else."""
    parts = raw.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in {b"stdout", b"stderr"}:  # time, stream, tag, text
        return None
    text = parts[3] if parts[2].startswith(b"F") else parts[3].removesuffix(b"\n")
    return Line(time=parts[0].decode(errors="replace"), stream=parts[1].decode(), text=text)


def parse_since(value: str, now: datetime) -> datetime:
    """Read a duration back from `now` ("90s", "1h30m", "2d") or an RFC 3339 time; raise ValueError for anything else."""
    matches = _DURATION.findall(value)
    if matches and "".join(number + unit for number, unit in matches) == value:
        return now - timedelta(seconds=sum(int(number) * _SECONDS[unit] for number, unit in matches))
    return moment(value)


def moment(text: str) -> datetime:
    """Read an RFC 3339 time; nanoseconds are cut to microseconds; raise ValueError for anything else."""
    cut = re.sub(r"(\.\d{6})\d+", r"\1", text)
    found = datetime.fromisoformat(cut)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def read(path: str) -> Iterator[Line]:
    """Give the lines that are there now; nothing when there is no file."""
    file = _open(path)
    if file is not None:
        with file:
            yield from _complete(file, bytearray())


def _complete(file: BinaryIO, rest: bytearray) -> Iterator[Line]:
    """Give every complete entry up to the present end; what follows it is kept in `rest` for the next time."""
    for raw in file:
        rest += raw
        if raw.endswith(b"\n"):
            line = parse(bytes(rest))
            rest.clear()
            if line is not None:
                yield line


def follow(path: str, running: Callable[[], bool]) -> Iterator[Line]:
    """Give the lines that are there and those that come, until `running` says no; rotated files are followed.

    The directory must exist. After the last "no" the rest of the file is read, so that nothing written before is missed.
    """
    rest = bytearray()
    with closing(DirectoryWatch(os.path.dirname(path))) as watch:
        file: BinaryIO | None = None
        try:
            while True:
                last = not running()
                file = file or _open(path)
                if file is not None:
                    yield from _complete(file, rest)
                    if _rotated(file, path):
                        yield from _complete(file, rest)
                        file.close()
                        file = None
                        continue
                if last:
                    return
                watch.wait(LOOK)
        finally:
            if file is not None:
                file.close()


def _open(path: str) -> BinaryIO | None:
    """Open a log, None where there is none.

    The daemon makes ordinary files. A pod that has the log directory as a volume may put a link to another file of the node in
    the place of one, or a pipe on which the reader would wait for ever.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ClientError(f"cannot read {path}: it is a symbolic link, and logs are not") from error
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise ClientError(f"cannot read {path}: it is no ordinary file, and logs are")
    return os.fdopen(number, "rb")


def _rotated(file: BinaryIO, path: str) -> bool:
    try:
        return not os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    except FileNotFoundError:
        return False


def tail(lines: Iterable[Line], count: int) -> Iterator[Line]:
    """Give the last `count` lines; entries that make one long line count once."""
    kept: deque[list[Line]] = deque(maxlen=count)
    group: list[Line] = []
    for line in lines:
        group.append(line)
        if line.whole:
            kept.append(group)
            group = []
    if group:
        kept.append(group)
    for entries in kept:
        yield from entries


def since(lines: Iterable[Line], start: datetime | None) -> Iterator[Line]:
    """Leave out lines before `start`."""
    for line in lines:
        if start is None or moment(line.time) >= start:
            yield line
