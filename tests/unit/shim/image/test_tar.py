"""The tar parser against Python's own writer, and against anything at all."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies

from shim.errors import FailedPrecondition, ResourceExhausted, WherryError
from shim.image.unpack import pax
from shim.image.unpack.streams import Source, open_stream
from shim.image.unpack.tar import Entry, Limits, TarInput, TarReader, number
from shim.image.unpack.writer import components

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = Limits(max_bytes=1 << 24, max_entries=100, max_ratio=100)


class Tape:
    def __init__(self) -> None:
        self.data = b""

    def raw(self, data: bytes, /) -> None:
        self.data += data


def entries(data: bytes, limits: Limits = LIMITS) -> list[tuple[Entry, bytes]]:
    source = feed(data)
    tape = Tape()
    reader = TarReader(TarInput(open_stream(source), source, limits), tape, limits)
    found, rebuilt = [], b""
    while (entry := reader.next()) is not None:
        rebuilt += tape.data
        tape.data = b""
        payload = b"".join(bytes(piece) for piece in reader.payload(entry.size)) if entry.size else b""
        rebuilt += payload
        found.append((entry, payload))
    assert rebuilt + tape.data == data  # what the recipe keeps, and the contents, are all of it
    return found


def feed(data: bytes) -> Source:
    fd = os.memfd_create("test")
    os.write(fd, data)
    opened.append(fd)
    return Source(fd, offset=0, length=len(data))


opened: list[int] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while opened:
        os.close(opened.pop())


def written(kind: int, *members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, **attributes: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_python_writes(kind: int) -> None:
    long = kind != tarfile.USTAR_FORMAT
    name, link = ("d/" * 100 + "file", "t" * 200) if long else ("d" * 50 + "/" + "f" * 90, "target")
    mtime = 1_600_000_000.25 if kind == tarfile.PAX_FORMAT else 1_600_000_000
    uid = 3_000_000_000 if long else 5
    data = written(
        kind,
        (member(name, mode=0o4711, uid=uid, gid=6, mtime=mtime), b"x" * 700),
        (member("link", type=tarfile.SYMTYPE, linkname=link), b""),
        (member("dev", type=tarfile.CHRTYPE, devmajor=5, devminor=1), b""),
    )
    (first, content), (second, _), (third, _) = entries(data)
    assert (first.name, content) == (name.encode(), b"x" * 700)
    assert (first.mode, first.uid, first.gid, first.mtime_ns) == (0o4711, uid, 6, int(mtime * 4) * 250_000_000)
    assert second.link == link.encode()
    assert (third.kind, third.major, third.minor) == (b"3", 5, 1)


def test_pax_records() -> None:
    headers = {"SCHILY.xattr.user.a": "1", "SCHILY.xattr.security.capability": "\0=\n", "comment": "x", "mtime": "-1.5"}
    ((entry, _),) = entries(written(tarfile.PAX_FORMAT, (member("a", pax_headers=headers), b"")))
    assert dict(entry.xattrs) == {b"user.a": b"1", b"security.capability": b"\0=\n"}
    assert entry.mtime_ns == -1_500_000_000


def test_global_headers_are_ignored_and_v7_directories_known() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "evil"}) as archive:
        archive.addfile(member("good"))
    assert [entry.name for entry, _ in entries(buffer.getvalue())] == [b"good"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:300],
        lambda data: data[:600],
        lambda data: b"\1" + data[1:],
        lambda data: data[:1024] + bytes(512) + data[:512] + bytes(1024),
    ],
)
def test_damage(damage: object) -> None:
    data = written(tarfile.USTAR_FORMAT, (member("a"), b"x" * 100), (member("b"), b"y" * 100))
    with pytest.raises(FailedPrecondition):
        entries(damage(data))  # type: ignore[operator]  # a lambda


def test_bounds() -> None:
    many = written(tarfile.USTAR_FORMAT, *((member(str(n)), b"") for n in range(200)))
    with pytest.raises(ResourceExhausted):
        entries(many)
    with pytest.raises(ResourceExhausted):
        entries(bytes(1 << 20), Limits(max_bytes=1000, max_entries=1, max_ratio=1))
    with pytest.raises(FailedPrecondition, match="extension header"):
        entries(written(tarfile.GNU_FORMAT, (member("n" * 2_000_000), b"")))
    headers = {"SCHILY.xattr.user.a": "x" * 2_000_000}
    with pytest.raises(FailedPrecondition, match="extension header"):
        entries(written(tarfile.PAX_FORMAT, (member("a", pax_headers=headers), b"")))


@pytest.mark.parametrize(
    "data",
    [b"x", b"5", b"99999 a=b\n", b"4 a=b\n", b"6 =ab\n", b"5 abc", b"0 \n", b"-5 a=b\n", b"9 path=\0\n", b"1" * 30 + b" a=b\n"],
)
def test_malformed_pax(data: bytes) -> None:
    with pytest.raises(FailedPrecondition):
        pax.parse(data)


def test_numbers() -> None:
    assert number(b"0000644\0", "mode") == 0o644
    assert number(b"  644 \0\0", "mode") == 0o644
    assert number(b"\0" * 8, "mode") == 0
    assert number(b"\x80" + bytes(9) + b"\1\0", "size") == 256
    assert number(b"\xff" * 12, "mtime") == -1
    for bad in (b"12x45678", b"-0000001", b"9999999\0"):
        with pytest.raises(FailedPrecondition):
            number(bad, "mode")


def test_components() -> None:
    assert components(b"./a//b/./c/") == [b"a", b"b", b"c"]
    assert components(b"/a/../b") == [b"b"]
    assert components(b".") == []
    for bad in (b"..", b"../a", b"a/../../b", b"a\0b", b"x" * 256, b"a/" * 3000):
        with pytest.raises(FailedPrecondition):
            components(bad)


@settings(max_examples=300)
@given(strategies.data())
def test_anything(data: strategies.DataObject) -> None:
    """Mutated archives are entries or a WherryError, never anything else."""
    base = bytearray(
        written(
            data.draw(strategies.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])),
            (member("d" * 90 + "/" + "é" * 30, uid=1 << 20, mtime=1.5), b"x" * 600),
            (member("l", type=tarfile.LNKTYPE, linkname="d" * 90), b""),
        )
    )
    for _ in range(data.draw(strategies.integers(0, 6))):
        place = data.draw(strategies.integers(0, len(base) - 1))
        base[place] = data.draw(strategies.integers(0, 255))
        if data.draw(strategies.booleans()):
            block = place // 512 * 512  # make the checksum right again, so that the rest is looked at
            base[block + 148 : block + 156] = b" " * 8
            base[block + 148 : block + 156] = b"%06o\0 " % sum(base[block : block + 512])
    try:
        with contextlib.suppress(WherryError):
            entries(bytes(base))
    finally:
        while opened:
            os.close(opened.pop())


@settings(max_examples=200)
@given(strategies.binary(max_size=3000))
def test_any_bytes(data: bytes) -> None:
    for prefix in (b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"):
        try:
            entries(prefix + data)
        except (WherryError, AssertionError):
            pass  # a compressed one that is valid does not rebuild to itself
        finally:
            while opened:
                os.close(opened.pop())
