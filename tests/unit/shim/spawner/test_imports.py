"""What is imported before the spawner is forked, and in it: threads and grpc would be in every monitor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
FORBIDDEN = {"grpc", "google", "aiohttp", "asyncio", "structlog", "sqlite3", "click", "rich", "prometheus_client"}


@pytest.mark.parametrize(
    "program",
    [
        "import shim.bootstrap",
        "from shim.spawner import forks; forks.defer(); import shim.spawner.server as s; s.warm({})",
        "from shim.spawner import forks; forks.defer(); import shim.spawner.nursery as n; n.warm()",
        "from shim.spawner import forks; forks.defer(); import shim.spawner.server as s; s.warm(s.KINDS)",
    ],
)
def test_nothing_heavy(program: str) -> None:
    check = "; import sys, os; print(*sorted(sys.modules)); print(len(os.listdir('/proc/self/task')))"
    finished = subprocess.run(
        [sys.executable, "-c", program + check], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    assert "not warm" not in finished.stderr
    assert "rehearsal failed" not in finished.stderr
    modules, threads = finished.stdout.splitlines()
    assert not {name.partition(".")[0] for name in modules.split()} & FORBIDDEN
    assert threads == "1"


def test_the_version_is_told_without_a_daemon() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "shim.bootstrap", "--version"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert finished.stdout.startswith("wherryd ")
    assert finished.returncode == 0


def test_a_wrong_option_is_named() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "shim.bootstrap", "--nonsense"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert finished.returncode == 2
    assert "--nonsense" in finished.stderr
