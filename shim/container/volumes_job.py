"""Copy an image's VOLUMEs out of its layers: the spawner job behind `volumes`.

Parameters: `lower`, the layers, topmost first; `top`, the directory to make; `volumes`, pairs of a path in the image and a
directory below `top`.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from runtime.apply.copyup import copy_folder
from runtime.apply.mounts import mount_overlay
from runtime.kernel.path import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from runtime.request import RootfsMount
from shim.errors import InvalidArgument, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ABSENT = frozenset({errno.ENOENT})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def run(params: dict[str, Any], _fds: list[int], _report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Make and fill the directories; the overlay is gone when this process ends."""
    os.umask(0)
    root = mount_overlay(RootfsMount(lower=tuple(params["lower"]), upper=None, work=None))
    os.mkdir(params["top"], 0o711)
    for path, folder in params["volumes"]:
        os.mkdir(folder, 0o755)
        try:
            _fill(root, path, folder)
        except OSError as error:
            if error.errno in _FULL:
                raise ResourceExhausted(f"volume {path} of the image cannot be copied: {error.strerror}") from error
            raise InvalidArgument(f"volume {path} of the image cannot be copied: {error.strerror}") from error
    return {}


def _fill(root: int, path: str, folder: str) -> None:
    """Copy the directory that `path` means inside the image; one that the image has not got stays empty."""
    try:
        source = openat2(root, path, _DIRECTORY, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno in _ABSENT:
            return
        raise
    copy_folder(source, target := os.open(folder, _DIRECTORY | os.O_NOFOLLOW))
    os.close(source)
    os.close(target)
