"""The first file system of the virtual machine, as a cpio archive (the kernel's initramfs buffer format)."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_FOLDERS = ("bin", "dev", "root")


def archive(init: bytes, busybox: bytes, modules: Sequence[Path]) -> bytes:
    """Give an archive with /init, busybox, the modules and /modules, which lists them in the order to load them."""
    parts = [_entry(name, stat.S_IFDIR | 0o755, b"") for name in _FOLDERS]
    parts.append(_entry("init", stat.S_IFREG | 0o755, init))
    parts.append(_entry("bin/busybox", stat.S_IFREG | 0o755, busybox))
    parts += [_entry(module.name, stat.S_IFREG | 0o644, module.read_bytes()) for module in modules]
    parts.append(_entry("modules", stat.S_IFREG | 0o644, "\n".join(module.name for module in modules).encode()))
    parts.append(_entry("TRAILER!!!", 0, b""))
    return b"".join(parts)


def _entry(name: str, mode: int, content: bytes) -> bytes:
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
