"""Every line and every branch of the SPDY machine is passed by its tests: what a peer may send has been sent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
PACKAGE = "shim/streaming/spdy"
TESTS = ("test_spdy_frames.py", "test_spdy_connection.py")


@pytest.mark.timeout(120)
def test_every_line_and_branch_is_covered(tmp_path: Path) -> None:
    coverage = [sys.executable, "-m", "coverage"]
    data = f"--data-file={tmp_path / 'coverage'}"
    pytest_run = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", *(str(HERE / name) for name in TESTS)]
    run = subprocess.run(
        [*coverage, "run", data, "--branch", f"--include={PACKAGE}/*", *pytest_run],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    report = subprocess.run(
        [*coverage, "report", data, "--show-missing", "--fail-under=100"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert report.returncode == 0, report.stdout
    for file in (ROOT / PACKAGE).glob("*.py"):
        assert f"{PACKAGE}/{file.name}" in report.stdout
