"""A cgroup of v2 that takes no more: one line says why, and nothing is left. What the peers say of it is theirs."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from tests.vm.inside.systemd import CGROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.oci_node import Oci

pytestmark = pytest.mark.vm

FULL = [
    pytest.param((("cgroup.max.descendants", "0"),), "resource temporarily unavailable", id="descendants"),
    pytest.param((("cgroup.max.depth", "0"),), "resource temporarily unavailable", id="depth"),
    pytest.param((("cgroup.subtree_control", "+pids"), ("pids.max", "0")), "resource temporarily unavailable", id="processes"),
    pytest.param((("cgroup.type", "threaded"),), "threaded", id="threads"),
]


@pytest.fixture
def parent() -> Iterator[Path]:
    """Give a new cgroup for the container's."""
    folder = CGROUPS / f"wtest-{secrets.token_hex(4)}"
    folder.mkdir()
    yield folder
    folder.rmdir()


@pytest.mark.parametrize(("settings", "words"), FULL)
def test_a_parent_that_takes_no_more_is_named(
    ours: Oci, parent: Path, settings: tuple[tuple[str, str], ...], words: str
) -> None:
    for name, value in settings:
        (parent / name).write_text(value)
    ours.config["linux"]["cgroupsPath"] = f"/{parent.name}/full"
    for command in ("create", "run"):
        ours.write("true")
        name = ours.new_id()
        done = ours.call(command, name)
        assert done.returncode == 1, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert words in done.stderr.lower()
        assert not (ours.root / name).exists()
        assert not (parent / "full").exists()


def test_exec_in_a_full_container_is_told_so(ours: Oci, parent: Path) -> None:
    ours.config["linux"]["cgroupsPath"] = f"/{parent.name}/full"
    ours.config["linux"]["resources"] = {"pids": {"limit": 1}}
    name = ours.start("sleep", "1000")
    done = ours.call("exec", name, "true")
    assert done.returncode == 255, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    ours.ok("delete", "--force", name)
    assert not (parent / "full").exists()
