"""The table of what known runtimes do otherwise names tests that exist, once each, and finds them by version."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from conformance.cri.deviations import TABLE, deviation

SUITE = Path(__file__).parents[2] / "conformance" / "cri"


def test_lines_name_tests_that_exist() -> None:
    tests = {
        f"{file.stem.removeprefix('test_')}::{name}"
        for file in SUITE.glob("test_*.py")
        for name in re.findall(r"^ *(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    for line in TABLE:
        pattern = line.test.partition("[[]")[0]
        assert any(fnmatchcase(name, pattern) for name in tests), line.test
        assert line.reason


@pytest.mark.parametrize(
    ("version", "found"), [("1.6.20~ds1", True), ("1.7.1", False), ("2.1.9", False), ("1.6", True), ("", True)]
)
def test_versions_bound_a_line(version: str, found: bool) -> None:
    assert (deviation("containerd", version, "events::test_life_of_a_pod") is not None) is found


def test_other_runtimes_have_no_lines() -> None:
    assert deviation("wherry", "0.1.0", "events::test_life_of_a_pod") is None


def test_brackets_are_brackets() -> None:
    assert deviation("containerd", "2.1.9", "images::test_image_as_volume[path]") is not None
    assert deviation("containerd", "2.1.9", "images::test_image_as_volume[whole]") is None
