"""What is imported before the spawner is forked, and in it: threads and grpc would be in every monitor."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from shim.spawner import warmth

ROOT = Path(__file__).parents[4]
HEAVY = {"grpc", "google", "aiohttp", "asyncio", "structlog", "sqlite3", "click", "rich", "prometheus_client", "ast", "tarfile"}
LARGE = HEAVY | {"typing", "re", "dataclasses", "inspect", "importlib.util", "json", "logging"}
"""What a monitor would carry in each of its forks."""


@pytest.mark.parametrize(
    ("program", "forbidden"),
    [
        ("import shim.bootstrap", LARGE),
        ("from shim.spawner import forks; forks.defer(); import shim.spawner.server as s; s.warm({})", HEAVY),
        ("from shim.spawner import forks; forks.defer(); import shim.spawner.nursery as n; n.warm()", LARGE),
        ("from shim.spawner import forks; forks.defer(); import shim.spawner.server as s; s.warm(s.KINDS)", HEAVY),
    ],
)
def test_nothing_heavy(program: str, forbidden: set[str]) -> None:
    check = "; import sys, os; print(*sorted(sys.modules)); print(len(os.listdir('/proc/self/task')))"
    finished = subprocess.run(
        [sys.executable, "-c", program + check], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    assert "not warm" not in finished.stderr
    assert "rehearsal failed" not in finished.stderr
    modules, threads = finished.stdout.splitlines()
    found = set(modules.split())
    assert not (found | {name.partition(".")[0] for name in found}) & forbidden
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


def test_a_late_module_is_loaded_by_its_first_use() -> None:
    program = """
import sys
from shim.late import import_late
import_late("colorsys")
import colorsys as early
import colorsys
assert early is colorsys and "rgb_to_hsv" not in vars(colorsys)
assert not hasattr(colorsys, "__path__") and "rgb_to_hsv" not in vars(colorsys)
from colorsys import rgb_to_hsv
assert early.rgb_to_hsv is rgb_to_hsv
import colorsys
assert colorsys is not early and colorsys.rgb_to_hsv is rgb_to_hsv
import_late("colorsys")
assert sys.modules["colorsys"] is colorsys
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


def test_the_modules_of_a_package_are_found_as_pkgutil_finds_them() -> None:
    for package in ("runtime", "cni"):
        folder = str(ROOT / package)
        assert list(warmth.modules_below(folder, package)) == [
            module.name for module in pkgutil.walk_packages([folder], f"{package}.")
        ]
