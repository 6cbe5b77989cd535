"""The binary under judgement: how it is called and what it says it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conformance.oci.support import wait

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS = 30 * wait.PATIENCE
"""How long one command may take: none has more to do than to start one small program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """An OCI runtime with runc's command line."""

    path: str
    args: tuple[str, ...]
    name: str
    version: tuple[int, ...]

    @property
    def systemd(self) -> bool:
        """Whether it was told to make cgroups through systemd, which gives cgroupsPath another form."""
        return "--systemd-cgroup" in self.args

    def call(self, *arguments: str, prefix: Sequence[str] = (), **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one command, by way of a prefix such as unshare; output is captured and decoded, and not judged."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        given = options.pop("input", None)
        if given is not None:
            options["stdin"] = subprocess.PIPE
        command = [*prefix, self.path, *self.args, *arguments]
        with subprocess.Popen(command, text=True, errors="replace", **options) as process:
            wait.ours.add(process.pid)
            try:
                out, err = _finish(process, given)
            finally:
                wait.ours.discard(process.pid)
        return subprocess.CompletedProcess(command, process.returncode, out, err)


def _finish(process: subprocess.Popen[str], given: str | None) -> tuple[str, str]:
    """Wait for a command, and meanwhile reap: the first process of a pid namespace ends only after all others are reaped."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            return process.communicate(given, timeout=0.2)
        except subprocess.TimeoutExpired:
            given = None
            wait.collect()
            if time.monotonic() > end:
                process.kill()
                raise AssertionError(f"`{process.args!r}` took longer than {SECONDS} s") from None


def identify(program: str, args: tuple[str, ...]) -> Runtime:
    """Find a runtime and read its name and version from the first line of `--version`; ValueError says what is wrong."""
    path = shutil.which(program)
    if path is None:
        raise ValueError(f"--runtime {program}: no such program")
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=SECONDS, check=False)
    found = re.match(r"(?P<name>[\w-]+)(?: version)?:?\s+v?(?P<version>\d+(?:\.\d+)*)", done.stdout)
    if found is None:
        return Runtime(path=os.path.abspath(path), args=args, name=program.rpartition("/")[2], version=(0,))
    version = tuple(int(word) for word in found["version"].split("."))
    return Runtime(path=os.path.abspath(path), args=args, name=found["name"], version=version)
