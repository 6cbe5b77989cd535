"""Time OCI runtimes alone: `run` of /bin/true from a bundle, each in a fresh process. Prints JSON: name → milliseconds.

It is a program of its own so that it can be started in a mount namespace where crun accepts the host's cgroups.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.images import unpack_busybox
from tests.support.tools import find_tool

WARM_UP = 3
"""Runs that are not counted."""


def main(arguments: list[str]) -> int:
    """Take the number of rounds and name=path for each runtime; give 0 also when one of them fails (it has a reason then)."""
    count, *words = arguments
    runtimes = dict(word.split("=", 1) for word in words)
    folder = Path(tempfile.mkdtemp(prefix="wherry-t"))
    try:
        bundle = _bundle(folder / "bundle")
        found = _compare(runtimes, bundle, folder, int(count))
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


def _compare(runtimes: dict[str, str], bundle: Path, folder: Path, count: int) -> dict[str, object]:
    samples: dict[str, list[float]] = {name: [] for name in runtimes}
    failed: dict[str, str] = {}
    for number in range(count + WARM_UP):
        for name, path in runtimes.items():
            if name not in failed:
                command = [
                    path,
                    "--root",
                    str(folder / f"state-{name}"),
                    "run",
                    "--bundle",
                    str(bundle),
                    f"wherry-bench-{name}",
                ]
                started = time.perf_counter()
                finished = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
                took = (time.perf_counter() - started) * 1000
                if finished.returncode != 0:
                    failed[name] = finished.stderr.decode(errors="replace").strip()[-300:] or f"exit code {finished.returncode}"
                elif number >= WARM_UP:
                    samples[name].append(took)
    return {name: failed.get(name, values) for name, values in samples.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
