"""A wherryd whose root directory is on the disk that keeps, and whose state, as on any node, is not."""

from __future__ import annotations

import hashlib
import random
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.daemon import Wherryd
from tests.support.images import busybox_image, files_layer

if TYPE_CHECKING:
    from tests.support.images import TestImage

DISK = Path("/disk")
FACTS = DISK / "facts.json"
"""What was true, and safely on the disk, before the crash."""
FINISHED = DISK / "finished"
"""Images that were loaded later; the newest lines may be lost with their images."""
EARLY = 3
"""Images that were loaded before the disk was flushed."""


def mount() -> None:
    """Mount the disk; the journal of its file system makes it whole again after the crash."""
    DISK.mkdir(exist_ok=True)
    subprocess.run(["mount", "/dev/vdb", DISK], check=True)


class Lasting(Wherryd):
    """The daemon, before the crash and after it."""

    def __init__(self) -> None:
        super().__init__(name="wcrash0", subnet="10.191.0.0/16")
        run = Path("/run/wcrash")
        self.state, self.netns = run / "state", run / "netns"
        self.netns.mkdir(parents=True, exist_ok=True)
        self.config.write_text(self._configuration(standard_plugins=False))

    def _new_folder(self) -> Path:
        folder = DISK / "wherry"
        folder.mkdir(exist_ok=True)
        return folder


def content(number: int, layer: int) -> bytes:
    """Give the big file of a layer, the same each time."""
    return random.Random(f"{number}.{layer}").randbytes(2 << 20)


def cargo(number: int) -> TestImage:
    """Give an image with two layers that no other image has."""
    layers = tuple(files_layer({f"cargo/{layer}": content(number, layer)}, compression="") for layer in range(2))
    return busybox_image(extra=layers)


def name_of(number: int) -> str:
    return f"localhost/test/cargo:{number}"


def sums(number: int) -> str:
    """Give what sha256sum prints of an image's files."""
    return "".join(f"{hashlib.sha256(content(number, layer)).hexdigest()}  /cargo/{layer}\n" for layer in range(2))
