"""Time OCI runtimes alone, each command in a fresh process and the runtimes in turn.

Measured are `run` of /bin/true from a bundle, create with start and delete of the same, and exec of /bin/true; and for each
runtime the most memory that any of these commands took. Prints JSON: key → name → samples, or why there are none.

It is a program of its own so that it can be started in a mount namespace where crun accepts the host's cgroups, and so that
it can adopt what containers leave, as a supervisor does.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.support.images import unpack_busybox
from tests.support.tools import find_tool

WARM_UP = 3
"""Rounds that are not counted."""
_PR_SET_CHILD_SUBREAPER = 36
MEASURE = """
import os, sys, time
null = os.open("/dev/null", os.O_RDWR)
started = time.perf_counter()
quiet = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1)]
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, usage = os.wait4(pid, 0)
took = (time.perf_counter() - started) * 1000
print(os.waitstatus_to_exitcode(status), took, usage.ru_maxrss * 1024 / 1e6)
"""


class Runtime:
    """One runtime with a state directory of its own; figures of its commands are kept by what was measured."""

    def __init__(self, path: str, folder: Path, bundle: Path) -> None:
        self._command = [path, "--root", str(folder)]
        self._bundle = bundle
        self._pid_file = folder.parent / f"{folder.name}.pid"
        self._errors = folder.parent / f"{folder.name}.err"
        self.samples: dict[str, list[float]] = {}
        self._peak = 0.0

    def call(self, *arguments: str) -> float:
        """Run one command and give its milliseconds; raise RuntimeError with what it said when it fails.

        A small process starts it: the kernel counts the memory of the one that forked to that of a new program.
        """
        command = [sys.executable, "-I", "-S", "-c", MEASURE, *self._command, *arguments]
        with self._errors.open("wb") as errors:  # no pipe: a container that stays would hold it open
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, check=True)
        code, took, peak = map(float, done.stdout.split())
        if code:
            raise RuntimeError(self._errors.read_text(errors="replace").strip()[-300:] or f"exit code {code:.0f}")
        self._peak = max(self._peak, peak)
        return took

    def create(self, name: str) -> tuple[float, int]:
        """Create a container; give the milliseconds and its process, which is now a child of this one."""
        took = self.call("create", "--bundle", str(self._bundle), "--pid-file", str(self._pid_file), name)
        return took, int(self._pid_file.read_text())

    def round(self, name: str, *, counted: bool) -> None:
        """Measure everything once."""
        found = {"oci_run": self.call("run", "--bundle", str(self._bundle), name)}
        created, pid = self.create(name)
        found["oci_exec"] = self.call("exec", name, "/bin/true")
        started = self.call("start", name)
        os.waitpid(pid, 0)
        found["oci_cycle"] = created + started + self.call("delete", name)
        if counted:
            found["oci_memory"] = self._peak
            for key, value in found.items():
                self.samples.setdefault(key, []).append(value)

    def clean(self, name: str) -> None:
        """Remove what a round that failed left."""
        with suppress(RuntimeError):
            self.call("delete", "--force", name)


def main(arguments: list[str]) -> int:
    """Take the number of rounds and name=path for each runtime; give 0 also when one of them fails (it has a reason then)."""
    count, *words = arguments
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    folder = Path(tempfile.mkdtemp(prefix="wherry-t"))
    try:
        bundle = _bundle(folder / "bundle")
        runtimes = {
            name: Runtime(path, folder / f"state-{name}", bundle) for name, path in (word.split("=", 1) for word in words)
        }
        found = _compare(runtimes, int(count))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(json.dumps(found))
    return 0


def _bundle(bundle: Path) -> Path:
    unpack_busybox(bundle / "rootfs")
    subprocess.run([find_tool("runc"), "spec", "--bundle", str(bundle)], check=True, capture_output=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["/bin/true"]}
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle


def _compare(runtimes: dict[str, Runtime], count: int) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    failed: dict[str, str] = {}
    for number in range(count + WARM_UP):
        for name in [name for name in runtimes if name not in failed]:
            try:
                runtimes[name].round(f"wherry-bench-{name}", counted=number >= WARM_UP)
            except RuntimeError as error:
                failed[name] = str(error)
                runtimes[name].clean(f"wherry-bench-{name}")
    for name, runtime in runtimes.items():
        for key in ("oci_run", "oci_cycle", "oci_exec", "oci_memory"):
            found.setdefault(key, {})[name] = failed.get(name) or runtime.samples.get(key, [])
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
