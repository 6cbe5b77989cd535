"""The suite that judges any OCI runtime: wherry-oci passes whole; Debian's runc and crun pass but for what the table says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.criu import working_criu
from tests.system.oci_node import HYBRID, OURS, RUNTIMES, program

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
JUDGEMENTS = 1000
"""Tests that were judged at the least."""


@pytest.fixture(scope="module")
def verdicts() -> dict[str, tuple[int, str]]:
    """Judge all three at once: the suite waits more than it computes, and each run has names of its own."""
    started = {}
    for runtime in RUNTIMES:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "conformance/oci",
            "--runtime",
            program(runtime),
        ]
        if runtime == "crun" and os.path.isdir(HYBRID):
            command = ["unshare", "-m", "sh", "-c", f'umount {HYBRID}; exec "$0" "$@"', *command]
        started[runtime] = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"OCI_CRIU": working_criu()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        return {
            runtime: (process.communicate(timeout=850)[0], process.returncode)[::-1] for runtime, process in started.items()
        }
    finally:
        for process in started.values():
            process.kill()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_passes(verdicts: dict[str, tuple[int, str]], runtime: str) -> None:
    """Ours has no line in the table; a peer has no failure that the table does not explain."""
    code, said = verdicts[runtime]
    assert code == 0, said[-9000:]
    summary = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", said.strip().splitlines()[-1])}
    assert sum(summary[word] for word in summary.keys() & {"passed", "xfailed", "xpassed"}) >= JUDGEMENTS
    assert runtime != OURS or not summary.keys() & {"xfailed", "xpassed"}
