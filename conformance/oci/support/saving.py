"""A container that is saved and restored, with what is to be seen of it meanwhile."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

from conformance.oci.support import criu, host, wait

if TYPE_CHECKING:
    from pathlib import Path

    from conformance.oci.support.case import Case, Done

COUNT = "i=0; while :; do i=$((i+1)); echo $i >/shared/count; sleep 0.03; done"
"""A script that writes how far it has come."""


class Saving:
    """A container that shares a folder with the host, and whose images lie beside it."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.shared = case.bundle / "shared"
        self.shared.mkdir()
        self.images = case.bundle / "images"
        self.name = ""
        case.mount("/tmp", "tmpfs", kind="tmpfs")
        case.mount("/shared", self.shared, "rbind", "rw")

    def start(self, script: str = COUNT, **options: Any) -> None:
        """Start the script; it has no stream of the host."""
        with open(os.devnull, "r+b") as null:
            streams = {"stdin": null, "stdout": null, "stderr": null}
            self.name = self.case.start("sh", "-c", script, **(streams | options))

    def call(self, verb: str, *flags: str, **options: Any) -> Done:
        """Checkpoint or restore; it is not judged."""
        environment = criu.environment()
        return self.case.call(verb, "--image-path", str(self.images), *flags, self.name, env=environment, **options)

    def save(self, *flags: str) -> None:
        """Checkpoint; it must succeed."""
        done = self.call("checkpoint", *flags)
        assert done.returncode == 0, f"`checkpoint` ended with {done.returncode}: {done.stderr}{self.log('dump')}"

    def refused(self, *flags: str, status: str = "running") -> str:
        """Checkpoint; it must fail, and the container go on."""
        done = self.call("checkpoint", *flags)
        assert done.returncode != 0, f"`checkpoint {' '.join(flags)}` must fail, and succeeded"
        assert done.stderr.strip(), "`checkpoint` failed and said nothing"
        assert self.case.status(self.name) == status
        return done.stderr

    def restore(self, *flags: str, **options: Any) -> None:
        """Restore; it must succeed, and the container run."""
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        done = self.call("restore", "--detach", *flags, **(quiet | options))
        assert done.returncode == 0, f"`restore` ended with {done.returncode}: {self.log('restore')}"
        assert self.case.status(self.name) == "running"

    def log(self, kind: str, folder: Path | None = None) -> str:
        """Give the end of criu's log."""
        return host.read(str((folder or self.images) / f"{kind}.log"))[-2500:]

    def count(self) -> int:
        """Give how far the container has counted."""
        return int(host.read(str(self.shared / "count")) or 0)

    def counts(self) -> None:
        """Wait until it goes on counting."""
        before = self.count()
        wait.wait_for(lambda: self.count() > before + 1, "the container to go on counting")

    def text(self, name: str) -> str:
        """Read a file of the shared folder."""
        return host.read(str(self.shared / name))

    def until_written(self, name: str, text: str = "") -> None:
        """Wait until a file of the shared folder holds a text."""
        wait.wait_for(lambda: (self.shared / name).exists() and text in self.text(name), f"{name} to be written")
