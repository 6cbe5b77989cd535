"""First bytes of compressed files; apart from streams, so that the daemon need not load decompressors."""

from __future__ import annotations

GZIP_MAGIC = b"\x1f\x8b\x08"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_SKIPPABLE = tuple(bytes((0x50 + n, 0x2A, 0x4D, 0x18)) for n in range(16))


def is_zstd(start: bytes) -> bool:
    """Say whether four bytes begin a zstd file (RFC 8878, 3.1)."""
    return start[:4] == ZSTD_MAGIC or start[:4] in ZSTD_SKIPPABLE


def is_compressed(start: bytes) -> bool:
    """Say whether four bytes begin a gzip or zstd file."""
    return start.startswith(GZIP_MAGIC) or is_zstd(start)
