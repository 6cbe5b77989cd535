"""The tables of what known products do otherwise, and what the suites that anybody may take may import."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from conformance.oci.support.probe import mount_at, sections, status
from conformance.oci.support.runtime import Runtime
from conformance.support.deviations import Deviation, known, load
from tests.unit.sources import ROOT, sources


def make(**parts: str) -> Deviation:
    whole = {"runtime": "runc", "versions": "", "test": "test_a.py::test_b", "reason": "it is so"} | parts
    return Deviation(**whole, sometimes=False)


def runtime(*version: int) -> Runtime:
    return Runtime(path="/usr/sbin/runc", args=(), name="runc", version=version)


@pytest.mark.parametrize("suite", ["oci", "cni"])
def test_needs_nothing_of_ours(suite: str) -> None:
    """A stranger judges what is his with Python, pytest, this folder and what the suites share."""
    allowed = sys.stdlib_module_names | {"pytest", "_pytest"}
    outside = {
        f"{source.path}: {name}"
        for folder in (f"conformance/{suite}", "conformance/support")
        for source in sources(folder)
        for name in source.imports()
        if name.partition(".")[0] not in allowed and not name.startswith((f"conformance.{suite}.", "conformance.support"))
    }
    assert not outside


@pytest.mark.parametrize(
    ("versions", "version", "concerned"),
    [
        ("", (1, 0), True),
        ("<1.2", (1, 1, 5), True),
        ("<1.2", (1, 2), False),
        ("<1.2", (1, 2, 1), False),
        (">=1.2", (1, 2, 0), True),
        (">=1.1,<1.3", (1, 2, 9), True),
        (">=1.1,<1.3", (1, 3), False),
        ("==1.3.6", (1, 3, 6), True),
        (">1.28", (1, 28), False),
    ],
)
def test_versions(versions: str, version: tuple[int, ...], *, concerned: bool) -> None:
    assert make(versions=versions).concerns(runtime(*version)) is concerned


def test_other_runtime() -> None:
    assert not make(runtime="crun").concerns(runtime(1))


def test_bad_comparison() -> None:
    with pytest.raises(ValueError, match="no comparison"):
        make(versions="about 1.2").concerns(runtime(1))


@pytest.mark.parametrize(
    ("pattern", "test", "named"),
    [
        ("test_a.py::test_b", "test_a.py::test_b", True),
        ("test_a.py::test_b[x]", "test_a.py::test_b[x]", True),
        ("test_a.py::test_b[x]", "test_a.py::test_bx", False),
        ("test_a.py::test_b[*", "test_a.py::test_b[y]", True),
        ("test_a.py::*", "test_c.py::test_b", False),
    ],
)
def test_patterns(pattern: str, test: str, *, named: bool) -> None:
    assert make(test=pattern).names(test) is named


def test_first_entry_that_fits() -> None:
    table = [make(test="test_other.py::*"), make(reason="the reason")]
    entry = known(runtime(1), "test_a.py::test_b", table)
    assert entry is not None
    assert entry.reason == "the reason"


def test_entry_without_reason(tmp_path: Path) -> None:
    path = tmp_path / "table.toml"
    path.write_text('[[deviation]]\nruntime = "runc"\ntests = ["x"]\nreason = " "\n')
    with pytest.raises(ValueError, match="lacks a reason"):
        load(path)


@pytest.mark.parametrize(("suite", "peers"), [("oci", {"runc", "crun", "youki"}), ("cni", {"containernetworking"})])
def test_table_names_tests_that_exist(suite: str, peers: set[str]) -> None:
    """An entry for a test that was renamed would hide nothing, and say so nowhere."""
    functions = {
        f"{Path(source.path).name}::{node.name}"
        for source in sources(f"conformance/{suite}")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    table = load(ROOT / "conformance" / suite / "deviations.toml")
    assert {entry.runtime for entry in table} <= peers, "ours has no deviations"
    lost = {
        entry.test
        for entry in table
        if not any(make(test=entry.test.partition("[")[0].rstrip("*") + "*").names(name) for name in functions)
    }
    assert not lost


def test_sections_of_what_a_container_says() -> None:
    assert sections("noise\n== one\na\nb\n\n== two\n") == {"one": "a\nb", "two": ""}
    assert status("Name:\tsh\nSeccomp:\t2") == {"Name": "sh", "Seccomp": "2"}


def test_topmost_mount() -> None:
    table = "\n".join(f"30 29 0:1 / /mnt {flag},relatime shared:{flag} - tmpfs {flag} rw,size=1k" for flag in ("ro", "rw"))
    found = mount_at(table, "/mnt")
    assert (found.source, found.propagation, found.options) == ("rw", "shared", {"rw", "relatime"})
    with pytest.raises(AssertionError, match="no mount point"):
        mount_at(table, "/tmp")
