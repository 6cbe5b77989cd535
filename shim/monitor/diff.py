"""The writable layer of a container as a tar, as image layers are: what was deleted stands in it as a whiteout.

overlayfs marks a deleted name by a device 0/0 and a replaced directory by an extended attribute; an image's layer has files
named .wh.NAME and .wh..wh..opq (image-spec layer.md "Whiteouts").
"""

from __future__ import annotations

import os
import stat
import tarfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
_OPAQUE_ATTRIBUTE = "trusted.overlay.opaque"
_OWN_ATTRIBUTES = "trusted.overlay."
_PAX_ATTRIBUTE = "SCHILY.xattr."


def write_diff(upper: str, path: str) -> list[str]:
    """Write the tar of an overlay's upper directory; give the names that were deleted, from the root."""
    deleted: list[str] = []
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        os.chmod(path, 0o600)
        for name, status in _walk(upper):
            full = os.path.join(upper, name)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                folder, base = os.path.split(name)
                tar.addfile(tarfile.TarInfo(os.path.join(folder, WHITEOUT + base)))
                deleted.append(f"/{name}")
            elif not stat.S_ISSOCK(status.st_mode):  # a socket is nothing without the process that listens
                _add(tar, full, name)
    return deleted


def _walk(upper: str) -> Iterator[tuple[str, os.stat_result]]:
    """Give every name below, folders before what is in them."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(os.path.join(upper, folder)) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                name = os.path.join(folder, entry.name)
                yield name, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)


def _add(tar: tarfile.TarFile, full: str, name: str) -> None:
    info = tar.gettarinfo(full, name)
    opaque = False
    attributes: dict[str, str] = {}
    for attribute in os.listxattr(full, follow_symlinks=False):
        value = os.getxattr(full, attribute, follow_symlinks=False)
        if attribute == _OPAQUE_ATTRIBUTE:
            opaque = value == b"y"
        elif not attribute.startswith(_OWN_ATTRIBUTES):
            attributes[_PAX_ATTRIBUTE + attribute] = value.decode("utf-8", "surrogateescape")
    info.pax_headers = attributes
    if info.isreg():
        with open(full, "rb") as file:
            tar.addfile(info, file)
    else:
        tar.addfile(info)
    if opaque:
        tar.addfile(tarfile.TarInfo(os.path.join(name, OPAQUE)))
