"""Parse tar archives as they stream: v7, ustar, pax and GNU (POSIX.1-2024 pax; GNU tar manual, "Basic Tar Format").

    TarInput    plain bytes in blocks, hashed, counted against the limits
    TarReader   headers to entries; the payload is taken by the caller

No effects: nothing here opens a file. Names stay bytes, because a tar has no encoding.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from shim.errors import FailedPrecondition, ResourceExhausted
from shim.image.unpack import pax, sparse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shim.image.unpack.streams import Reader

BLOCK = 512
CHUNK = 256 * 1024
MAX_SPECIAL = 1024 * 1024
"""Bytes of one pax or GNU long-name header (what Go's archive/tar believes)."""
MAX_ID = 0xFFFFFFFE
"""(uid_t)-1 means "leave unchanged" to chown(2) and is refused."""
RATIO_FROM = 256 * 1024 * 1024

REGULAR, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_TYPES = frozenset((REGULAR, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO))
_REGULAR_TOO = frozenset((b"\0", b"7"))
_ZERO = bytes(BLOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member of an archive; `size` is the payload that follows."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    layout: sparse.Layout | None = None
    """Where the payload belongs in a sparse file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one layer may cost."""

    max_bytes: int
    max_entries: int
    max_ratio: int


class Counted(Protocol):
    """Says how many compressed bytes were read so far."""

    count: int


class Blocks(Protocol):
    """What TarReader reads from: TarInput, or a file whose contents are stepped over."""

    def take(self, size: int, /) -> bytes:
        """Give exactly `size` bytes, b"" at the very end."""

    def pieces(self, size: int, /) -> Iterator[memoryview]:
        """Give `size` bytes in pieces."""

    def rest(self) -> Iterator[bytes]:
        """Give what is left."""


class Tape(Protocol):
    """Gets every byte that is not the payload of a kept file (see recipe)."""

    def raw(self, data: bytes, /) -> None:
        """Take bytes that must be kept as they are."""


class TarInput:
    """The plain bytes of a layer: hashed, bounded, in blocks."""

    def __init__(self, reader: Reader, compressed: Counted, limits: Limits, *, algorithm: str = "sha256") -> None:
        self._reader = reader
        self._compressed = compressed
        self._limits = limits
        self._buffer = b""
        self._place = 0
        self.hash = hashlib.new(algorithm)
        self.total = 0

    @property
    def digest(self) -> str:
        """The digest of the plain bytes that were read so far."""
        return f"{self.hash.name}:{self.hash.hexdigest()}"

    def take(self, size: int) -> bytes:
        """Give exactly `size` bytes, or b"" at the very end; raise FailedPrecondition when the end is in the middle."""
        end = self._place + size
        if end <= len(self._buffer):
            data = self._buffer[self._place : end]
            self._place = end
            return data
        parts = [bytes(part) for part in self.pieces(size, end_allowed=True)]
        return b"".join(parts)

    def pieces(self, size: int, *, end_allowed: bool = False) -> Iterator[memoryview]:
        """Give `size` bytes in pieces; raise FailedPrecondition when they end too early."""
        left = size
        while left:
            if self._place == len(self._buffer) and not self._fill():
                if end_allowed and left == size:
                    return
                raise FailedPrecondition("the tar archive ends in the middle of a member")
            piece = memoryview(self._buffer)[self._place : self._place + left]
            self._place += len(piece)
            left -= len(piece)
            yield piece

    def rest(self) -> Iterator[bytes]:
        """Give everything up to the end of the stream."""
        while self._place < len(self._buffer) or self._fill():
            data = self._buffer[self._place :]
            self._place = len(self._buffer)
            yield data

    def _fill(self) -> bool:
        self._buffer = self._reader.read(CHUNK)
        self._place = 0
        self.hash.update(self._buffer)
        self.total += len(self._buffer)
        limits = self._limits
        if self.total > limits.max_bytes:
            raise ResourceExhausted(f"the layer is larger than {limits.max_bytes} bytes uncompressed (max_layer_bytes)")
        if self.total > RATIO_FROM and self.total > limits.max_ratio * self._compressed.count:
            raise ResourceExhausted(f"the layer expands more than {limits.max_ratio} times (max_ratio): it looks like a bomb")
        return len(self._buffer) > 0


class TarReader:
    """Entries of a tar archive, in order."""

    def __init__(self, source: Blocks, tape: Tape, limits: Limits) -> None:
        self._source = source
        self._tape = tape
        self._limits = limits
        self._entries = 0
        self._payload_left = 0
        self._padding = 0

    def payload(self, size: int) -> Iterator[memoryview]:
        """Give the payload of the current entry; its bytes do not reach the tape (the caller records them)."""
        self._payload_left -= size
        return self._source.pieces(size)

    def next(self) -> Entry | None:
        """Give the next entry, None at the end; raise FailedPrecondition for a malformed archive."""
        self._skip()
        attributes: dict[bytes, bytes] = {}
        while True:
            header = self._take(BLOCK)
            if not header or header == _ZERO:
                self._finish(bool(header))
                return None
            kind, size = self._checked(header)
            if kind in b"xgLK":
                self._special(kind, self._take_special(size), attributes)
                continue
            entry = build(header, kind, attributes)
            if entry.layout is not None and entry.layout.size > self._limits.max_bytes:
                raise ResourceExhausted(f"a sparse file is larger than {self._limits.max_bytes} bytes (max_layer_bytes)")
            self._payload_left = entry.size
            self._padding = -entry.size % BLOCK
            return entry

    def _checked(self, header: bytes) -> tuple[bytes, int]:
        self._entries += 1
        if self._entries > self._limits.max_entries:
            raise ResourceExhausted(f"the layer has more than {self._limits.max_entries} entries (max_layer_entries)")
        stored = number(header[148:156], "checksum")
        unsigned = sum(header) - sum(header[148:156]) + 8 * 32
        if stored != unsigned and stored != unsigned - 256 * sum(byte > 127 for byte in header[:148] + header[156:]):
            raise FailedPrecondition("the layer is not a tar archive, or a header's checksum is wrong")
        return header[156:157], number(header[124:136], "size")

    def _take_special(self, size: int) -> bytes:
        if not 0 <= size <= MAX_SPECIAL:
            raise FailedPrecondition(f"a tar extension header is larger than {MAX_SPECIAL} bytes")
        data = self._take(size)
        self._take(-size % BLOCK)
        return data

    @staticmethod
    def _special(kind: bytes, data: bytes, attributes: dict[bytes, bytes]) -> None:
        if kind == b"x":
            attributes.update(pax.parse(data))
        elif kind == b"L":
            attributes[b"path"] = data.partition(b"\0")[0]
        elif kind == b"K":
            attributes[b"linkpath"] = data.partition(b"\0")[0]
        # A global header ("g") is ignored, as the peers ignore it: git archive writes one with a comment.

    def _take(self, size: int) -> bytes:
        data = self._source.take(size)
        if size and not data and size != BLOCK:
            raise FailedPrecondition("the tar archive ends in the middle of a header")
        self._tape.raw(data)
        return data

    def _skip(self) -> None:
        for piece in self._source.pieces(self._payload_left + self._padding):
            self._tape.raw(bytes(piece))
        self._payload_left = self._padding = 0

    def _finish(self, terminated: bool) -> None:
        if terminated:
            second = self._take(BLOCK)
            if second and second != _ZERO:
                raise FailedPrecondition("a lone zero block stands in the middle of the tar archive")
        for data in self._source.rest():
            self._tape.raw(data)


def build(header: bytes, kind: bytes, attributes: dict[bytes, bytes]) -> Entry:
    """Make an entry from a ustar header and the pax and GNU attributes before it; raise FailedPrecondition."""
    name = attributes.get(sparse.PREFIX + b"name") or attributes.get(b"path") or _name(header)
    if kind in _REGULAR_TOO:
        kind = DIRECTORY if name.endswith(b"/") and kind == b"\0" else REGULAR
    layout = sparse.layout(attributes) if attributes else None
    if kind not in _TYPES or (layout is not None and kind != REGULAR):
        what = "sparse file" if kind in (REGULAR, b"S") else f"member type {kind!r}"
        raise FailedPrecondition(f"tar member {shown(name)} is a {what}, which is not supported")
    pax_size = attributes.get(b"size")
    size = 0
    if kind == REGULAR:
        size = pax.integer(pax_size, "size") if pax_size else number(header[124:136], "size")
    device = kind in (CHAR, BLOCK_DEVICE)
    if size < 0:
        raise FailedPrecondition(f"tar member {shown(name)} has a negative size")
    return Entry(
        name=name,
        kind=kind,
        mode=number(header[100:108], "mode") & 0o7777,
        uid=_identity(attributes.get(b"uid"), header[108:116], name),
        gid=_identity(attributes.get(b"gid"), header[116:124], name),
        size=size,
        mtime_ns=_mtime(attributes.get(b"mtime"), header),
        link=(attributes.get(b"linkpath") or _text(header[157:257])) if kind in (LINK, SYMLINK) else b"",
        major=number(header[329:337], "device") if device else 0,
        minor=number(header[337:345], "device") if device else 0,
        xattrs=pax.xattrs(attributes) if len(attributes) else (),
        layout=layout,
    )


def number(field: bytes, what: str) -> int:
    """Read a numeric field: octal text, or base 256 when its highest bit is set; raise FailedPrecondition."""
    if field[0] & 0x80:
        negative = field[0] & 0x40
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if negative else value
    text = field.partition(b"\0")[0].strip(b" ")
    if not text:
        return 0
    if text.translate(None, b"01234567"):
        raise FailedPrecondition(f"a tar header has a malformed {what} field")
    return int(text, 8)


def shown(name: bytes) -> str:
    """Give a name for a message, bounded."""
    text = name[:120].decode("utf-8", "backslashreplace")
    return repr(text if len(name) <= 120 else text + "...")


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _name(header: bytes) -> bytes:
    name = _text(header[0:100])
    if header[257:263] != b"ustar\0":
        return name
    prefix = _text(header[345:500])
    if header[508:512] == b"tar\0":  # star keeps access and change times behind a shorter prefix
        prefix = _text(header[345:476])
    return prefix + b"/" + name if prefix else name


def _identity(extended: bytes | None, field: bytes, name: bytes) -> int:
    value = pax.integer(extended, "id") if extended else number(field, "id")
    if not 0 <= value <= MAX_ID:
        raise FailedPrecondition(f"tar member {shown(name)} has the owner {value}, which is out of range")
    return value


def _mtime(extended: bytes | None, header: bytes) -> int:
    value = pax.nanoseconds(extended) if extended else number(header[136:148], "mtime") * 1_000_000_000
    return value if -(1 << 62) < value < 1 << 62 else 0
