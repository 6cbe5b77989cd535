"""Entry point of `make bench`: starts every daemon, measures, prints Markdown, and leaves nothing."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from conformance.bench import measure, report
from conformance.bench.probes import probes
from conformance.bench.target import Target, make_targets
from tests.support.daemon import without_hybrid
from tests.support.images import busybox_image
from tests.support.process import DaemonError
from tests.support.tools import MissingToolError, find_tool

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ("wherry", "runc", "crun")


def main() -> int:
    """Measure; exit code 1 when a side could not be measured at all."""
    arguments = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="wherry-t"))
    results = measure.Results()
    versions: dict[str, str] = {}
    targets: list[Target] = []
    try:
        chosen = {"runc": arguments.runc, "crun": arguments.crun}
        targets = make_targets(arguments.targets, folder, containerd=arguments.containerd, runtimes=chosen)
        alive = [target for target in targets if _start(target, results, versions)]
        for name, action in _plan(results, alive, folder, arguments).items():
            if not arguments.only or name in arguments.only:
                _say(f"measuring {name}")
                action()
        versions |= {name: report.tool_version(path) for name, path in _runtimes(arguments).items() if name != "wherry"}
    except MissingToolError as error:
        _say(str(error))
        return 1
    finally:
        _end(targets)
        shutil.rmtree(folder, ignore_errors=True)
    text = report.markdown(results, versions)
    sys.stdout.write(text)
    if arguments.output:
        Path(arguments.output).write_text(text, encoding="utf-8")
    return 0 if all(name in versions for name in arguments.targets) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m conformance.bench", description=__doc__)
    parser.add_argument("--targets", type=_words, default=list(NAMES), help="sides to measure: wherry,runc,crun")
    parser.add_argument("--only", type=_words, default=[], help="measurements: pods,parallel,exec,probes,density,logs,pull,oci")
    parser.add_argument("--containerd", default="", metavar="PATH", help="containerd to start instead of the one in PATH")
    parser.add_argument("--runc", default="", metavar="PATH")
    parser.add_argument("--crun", default="", metavar="PATH")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: for trying the benchmark itself")
    parser.add_argument("--output", default="", metavar="FILE", help="also write the result there")
    return parser.parse_args()


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _plan(
    results: measure.Results, targets: list[Target], folder: Path, arguments: argparse.Namespace
) -> dict[str, Callable[[], None]]:
    quick = arguments.quick
    return {
        "density": lambda: measure.density(results, targets, 20 if quick else 50),
        "pods": lambda: measure.pods(results, targets, 5 if quick else 30),
        "parallel": lambda: measure.parallel(results, targets, 16 if quick else 40),
        "exec": lambda: measure.execs(results, targets, 10 if quick else 50),
        "probes": lambda: probes(results, targets, 20 if quick else 100, 3 if quick else 10),
        "logs": lambda: measure.logs(results, targets, 4 if quick else 12),
        "pull": lambda: measure.pulls(results, targets, folder, 1 if quick else 4),
        "oci": lambda: _oci(results, _runtimes(arguments), 5 if quick else 50),
    }


def _start(target: Target, results: measure.Results, versions: dict[str, str]) -> bool:
    _say(f"starting {target.name}")
    try:
        target.start(busybox_image(extra=(measure.lines_layer(),)))
        versions[target.name] = target.version()
    except Exception as error:  # noqa: BLE001 - one side that does not come up must not hide the others
        results.failed("everything", target.name, error)
        sys.stderr.write(target.endpoint.process.log_tail() + "\n")
        return False
    return True


def _end(targets: list[Target]) -> None:
    for target in targets:
        try:
            target.stop()
        except Exception as error:  # noqa: BLE001 - the next side must be stopped as well
            _say(f"stopping {target.name}: {error}")
        for thing in target.endpoint.scrub():
            _say(f"left by {target.name}: {thing}")


def _runtimes(arguments: argparse.Namespace) -> dict[str, str]:
    own = str(Path(sys.executable).parent / "wherry-oci")
    paths = {"wherry": own, "runc": arguments.runc, "crun": arguments.crun}
    return {name: paths[name] or find_tool(name) for name in arguments.targets}


def _oci(results: measure.Results, runtimes: dict[str, str], count: int) -> None:
    words = [f"{name}={path}" for name, path in runtimes.items()]
    command = [*without_hybrid("crun"), sys.executable, "-m", "conformance.bench.oci", str(count), *words]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=False, env=os.environ)
    if finished.returncode != 0:
        results.notes.append(f"oci: the timer ended with {finished.returncode}")
        return
    for key, sides in json.loads(finished.stdout).items():
        for name, found in sides.items():
            if isinstance(found, str):
                results.failed(key, name, RuntimeError(found))
            else:
                results.add(key, name, found)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DaemonError as failure:
        sys.exit(str(failure))
