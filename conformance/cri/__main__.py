"""Bring up a wherryd, a registry and the images of critest's specs; run critest, or wait for somebody who does.

python -m conformance.cri critest /path/to/critest [critest's arguments]
python -m conformance.cri serve
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from conformance.cri.critest_images import NOT_MADE, images, mirrors
from tests.support.daemon import Wherryd
from tests.support.process import DaemonError
from tests.support.registry import Registry
from tests.support.tools import MissingToolError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def main() -> int:
    """Give critest's exit code, or 1 when the daemons do not come up."""
    parser = argparse.ArgumentParser(prog="python -m conformance.cri", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    critest = commands.add_parser("critest", help="run critest against a fresh wherryd")
    critest.add_argument("program", help="path of critest")
    critest.add_argument("arguments", nargs=argparse.REMAINDER, help="more arguments for critest")
    commands.add_parser("serve", help="serve until interrupted, and say where")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what has been started is ended either way
    try:
        with endpoint() as address:
            if chosen.command == "serve":
                sys.stdout.write(f"{address}\n")
                sys.stdout.flush()
                signal.pause()
            return run(chosen.program, address, chosen.arguments)
    except KeyboardInterrupt:
        return 0 if chosen.command == "serve" else 130
    except (MissingToolError, DaemonError, FileNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def run(program: str, address: str, arguments: Sequence[str]) -> int:
    """Run critest against an endpoint and give its exit code."""
    for name, reason in NOT_MADE.items():
        sys.stderr.write(f"skipped: {name!r}: {reason}\n")
    skip = [f"-ginkgo.skip={re.escape(name)}" for name in NOT_MADE]
    command = [program, "-runtime-endpoint", address, "-image-endpoint", address, *_nri(program, address), *skip, *arguments]
    return subprocess.run(command, check=False).returncode


def _nri(program: str, address: str) -> list[str]:
    """Give the option that lets critest's specs of NRI run, which older ones have not got."""
    known = subprocess.run([program, "-h"], check=False, capture_output=True, text=True)
    socket = Path(address.removeprefix("unix://")).parent / "nri"
    return ["-nri-socket", str(socket)] if "nri-socket" in known.stdout + known.stderr else []


@contextmanager
def endpoint() -> Iterator[str]:
    """Give the address of a private wherryd that finds the images; nothing is left afterwards."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="wherry-t"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        registry = Registry(folder / "registry").start()
        stack.callback(registry.stop)
        for name, image in images().items():
            repository, _, tag = name.rpartition(":")
            registry.push(repository, tag, image)
        certs = mirrors(folder / "certs.d", registry.host)
        daemon = Wherryd("wcritest", "10.194.0.0/16", extra=f'[image]\nregistry_config_dirs = ["{certs}"]\n')
        stack.callback(_end, daemon)
        daemon.start()
        yield f"unix://{daemon.address}"


def _end(daemon: Wherryd) -> None:
    try:
        daemon.stop()
    finally:
        for thing in daemon.scrub():
            sys.stderr.write(f"left behind: {thing}\n")


if __name__ == "__main__":
    sys.exit(main())
