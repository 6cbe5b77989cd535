"""Records of pax extended headers (POSIX.1-2024, pax, "pax Extended Header")."""

from __future__ import annotations

from shim.errors import FailedPrecondition
from shim.image.unpack import sparse

XATTR_PREFIX = b"SCHILY.xattr."
MAX_DIGITS = 20
_KEPT = frozenset((b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"))


def parse(data: bytes) -> dict[bytes, bytes]:
    """Give the records that an unpacker needs, by key; raise FailedPrecondition for a malformed header."""
    records: dict[bytes, bytes] = {}
    pairs: list[bytes] = []
    place = 0
    while place < len(data):
        space = data.find(b" ", place, place + MAX_DIGITS)
        digits = data[place:space]
        if space < 0 or not digits.isdigit():
            raise FailedPrecondition("a pax header has a record without a length")
        end = place + int(digits)
        if end > len(data) or end <= space or data[end - 1 : end] != b"\n":
            raise FailedPrecondition("a pax header has a record with a wrong length")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise FailedPrecondition("a pax header has a record without a key")
        if key in sparse.PAIRS:
            pairs.append(value)
        else:
            _keep(records, key, value)
        place = end
    if pairs:
        records[sparse.MAP] = b",".join(pairs)
    return records


def _keep(records: dict[bytes, bytes], key: bytes, value: bytes) -> None:
    if key in _KEPT or key.startswith(sparse.PREFIX):
        if b"\0" in value:
            raise FailedPrecondition(f"the pax record {key.decode('ascii', 'backslashreplace')[:40]} has a zero byte")
        records[key] = value
    elif key.startswith(XATTR_PREFIX):
        records[key] = value


def integer(text: bytes, what: str) -> int:
    """Read a decimal number of at most 20 digits; raise FailedPrecondition."""
    if len(text) > MAX_DIGITS or not text.removeprefix(b"-").isdigit():
        raise FailedPrecondition(f"a pax header has a malformed {what}")
    return int(text)


def nanoseconds(text: bytes) -> int:
    """Read seconds with a decimal fraction as nanoseconds; raise FailedPrecondition."""
    whole, _, fraction = text.partition(b".")
    if len(fraction) > 64 or (fraction and not fraction.isdigit()):
        raise FailedPrecondition("a pax header has a malformed time")
    part = int(fraction[:9].ljust(9, b"0"))
    seconds = 0 if whole in (b"", b"-") else integer(whole, "time")
    return seconds * 1_000_000_000 + (-part if text.startswith(b"-") else part)


def xattrs(attributes: dict[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Give the extended attributes among pax records, names without the prefix."""
    start = len(XATTR_PREFIX)
    return tuple((key[start:], value) for key, value in attributes.items() if key.startswith(XATTR_PREFIX))
