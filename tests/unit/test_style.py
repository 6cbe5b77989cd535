"""House style: what the linters, the formatter and the type checker say, and how long a file may be."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.sources import PACKAGES, ROOT, sources

LONGEST = 400
"""Lines a file may have: one reason to change fits in them."""
EVERYTHING = (*PACKAGES, "tests", "conformance")
SUPPRESSION = re.compile(r"#\s*(noqa|type: ignore)(?P<codes>[:\[][^#\n]*)?")
REASONED = re.compile(r"#\s*(noqa: [A-Z]+\d+(, ?[A-Z]+\d+)*|type: ignore\[[a-z-]+(, ?[a-z-]+)*\])\s+(- |# ?)\S")


def _run(program: str, *arguments: str) -> str:
    command = [str(Path(sys.executable).parent / program), *arguments]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return "" if finished.returncode == 0 else finished.stdout + finished.stderr


def test_files_are_short() -> None:
    too_long = {source.path: lines for source in sources(*EVERYTHING) if (lines := source.text.count("\n")) > LONGEST}
    assert not too_long


def test_every_suppression_has_a_reason() -> None:
    bare = [
        f"{source.path}:{number}: {line.strip()}"
        for source in sources(*EVERYTHING)
        for number, line in enumerate(source.text.splitlines(), 1)
        if SUPPRESSION.search(line) and not REASONED.search(line) and "re.compile" not in line
    ]
    assert not bare


def test_ruff() -> None:
    assert not _run("ruff", "check", "--no-cache", "--quiet", ".")


def test_format() -> None:
    assert not _run("ruff", "format", "--no-cache", "--check", "--quiet", ".")


@pytest.mark.timeout(600)
def test_types() -> None:
    assert not _run("mypy")
