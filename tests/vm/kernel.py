"""Debian's kernel for the virtual machine: an image that QEMU boots without unpacking it in emulation, and its modules."""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

from tests.support.tools import find_tool

if TYPE_CHECKING:
    from pathlib import Path

NEEDED_TO_START = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic", "virtio_console", "9pnet_virtio", "9p")
"""Modules that initrd loads; the rest is loaded when it is asked for."""
KEPT = ("arch", "block", "crypto", "fs", "lib", "net", "drivers/block", "drivers/char", "drivers/virtio")
"""Folders of modules a container runtime's host may need; drivers of real hardware are left out."""


def package(name: str = "linux-image-amd64") -> str:
    """Give the package with the present kernel, which `name` depends on."""
    shown = subprocess.run(["apt-cache", "depends", name], check=True, capture_output=True, text=True).stdout
    found = re.search(r"Depends: (linux-image-\S+)", shown)
    if found is None:
        raise LookupError(f"{name} depends on no kernel; run apt-get update")
    return found[1]


def vmlinux(image: bytes) -> bytes:
    """Give the ELF file inside a bzImage (the kernel's Documentation/x86/boot: setup_sects, payload_offset, payload_length)."""
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1F1] + 1) * 512 + offset
    payload = image[start : start + length]
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(payload)  # a size follows, which is not of the stream
    if payload.startswith(b"\x1f\x8b"):
        return gzip.decompress(payload[:-4])
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(payload)
    raise ValueError(f"the kernel is packed in an unknown way: {payload[:6]!r}")


def install_modules(unpacked: Path, root: Path) -> Path:
    """Copy modules from an unpacked package below `root`, and index them; give their folder."""
    source = next((unpacked / "lib/modules").iterdir())
    target = root / "lib/modules" / source.name
    for folder in KEPT:
        shutil.copytree(source / "kernel" / folder, target / "kernel" / folder)
    (target / "kernel/drivers/net").mkdir(parents=True)
    for module in (source / "kernel/drivers/net").glob("*.ko"):
        shutil.copy(module, target / "kernel/drivers/net")
    for index in source.glob("modules.*"):
        shutil.copy(index, target)
    subprocess.run([find_tool("busybox"), "depmod", "-b", root, source.name], check=True)
    return target


def load_order(modules: Path) -> list[Path]:
    """Give the files of NEEDED_TO_START with all they depend on, in an order in which they can be loaded (modules.dep(5))."""
    lines = (line.partition(":") for line in (modules / "modules.dep").read_text().splitlines())
    needs = {path: rest.split() for path, _, rest in lines}
    by_name = {path.rpartition("/")[2].removesuffix(".ko"): path for path in needs}
    order: list[str] = []

    def add(path: str) -> None:
        for other in needs[path]:
            add(other)
        if path not in order:
            order.append(path)

    for name in NEEDED_TO_START:
        if name in by_name:
            add(by_name[name])
    return [modules / path for path in order]
