"""mounts add and remove, which crun has and others may: a running container gets mounts and loses them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from conformance.oci.support.probe import mount_at

if TYPE_CHECKING:
    from pathlib import Path

    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("crun: mounts add, mounts remove")


@pytest.fixture(autouse=True)
def offered(case: Case) -> None:
    """Skip a runtime that does not know the command."""
    if case.call("mounts", "--help").returncode != 0:
        pytest.skip(f"{case.runtime.name} has no command mounts")


def listed(case: Case, *mounts: dict[str, Any]) -> str:
    """Write a file of mounts; give its path."""
    path = case.bundle / "mounts.json"
    path.write_text(json.dumps(mounts))
    return str(path)


@pytest.mark.parametrize("user", [False, True])
def test_come_and_go(case: Case, source: Path, user: bool) -> None:
    """What the file lists is mounted in the container alone, and unmounted by the same file."""
    if user:
        case.userns()
    case.mount("/mnt", "tmpfs", kind="tmpfs")
    name = case.sleeper()
    path = listed(
        case,
        {"destination": "/mnt/data", "type": "bind", "source": str(source), "options": ["bind", "ro"]},
        {"destination": "/mnt/scratch", "type": "tmpfs", "source": "tmpfs"},
    )
    case.ok("mounts", "add", name, path)
    assert case.execute("cat /mnt/data/file") == "host's"
    table = case.execute("cat /proc/self/mountinfo")
    assert "ro" in mount_at(table, "/mnt/data").options
    assert mount_at(table, "/mnt/scratch").kind == "tmpfs"
    case.ok("mounts", "remove", name, path)
    table = case.execute("cat /proc/self/mountinfo")
    assert "/mnt/data" not in table
    assert "/mnt/scratch" not in table


def test_writes_go_through(case: Case, source: Path) -> None:
    """A bind mount without ro shows the container's writes on the host."""
    name = case.sleeper()
    case.ok("mounts", "add", name, listed(case, {"destination": "/mnt", "source": str(source), "options": ["bind"]}))
    case.execute("echo new >/mnt/file")
    assert (source / "file").read_text() == "new\n"


def test_not_there(case: Case) -> None:
    """What is not mounted cannot be removed."""
    name = case.sleeper()
    case.fails("mounts", "remove", name, listed(case, {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"}))


@pytest.mark.parametrize("wrong", ["source", "kind", "document", "file"])
def test_wrong(case: Case, wrong: str) -> None:
    """A source or a file system that does not exist, and a file that is none, are errors, and the container goes on."""
    name = case.sleeper()
    mounts: dict[str, dict[str, Any]] = {
        "source": {"destination": "/mnt", "source": "/nonexistent/source", "options": ["bind"]},
        "kind": {"destination": "/mnt", "type": "nosuchfs", "source": "none"},
    }
    path = listed(case, mounts[wrong]) if wrong in mounts else str(case.bundle / "mounts.json")
    if wrong == "document":
        (case.bundle / "mounts.json").write_text("{")
    case.fails("mounts", "add", name, path)
    assert case.status() == "running"


def test_wrong_container(case: Case) -> None:
    """A container that does not exist, or has ended, gets no mounts."""
    path = listed(case, {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"})
    case.fails("mounts", "add", "judge-nobody", path)
    name = case.start("true")
    case.until("stopped")
    case.fails("mounts", "add", name, path)
