"""Mount options about symbolic links, which crun has and others may: judged where the features document names them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("crun: copy-symlink, src-nofollow, dest-nofollow")


@pytest.fixture
def link(case: Case) -> Path:
    """Make a link of the host to a file of the host."""
    (case.bundle / "file").write_text("content\n")
    os.symlink(case.bundle / "file", case.bundle / "link")
    return case.bundle / "link"


def need(case: Case, option: str) -> None:
    """Skip where the runtime does not say that it knows an option."""
    done = case.call("features")
    if done.returncode != 0 or option not in json.loads(done.stdout)["mountOptions"]:
        pytest.skip(f"{case.runtime.name} does not offer {option} in its features")


def test_copied(case: Case, link: Path) -> None:
    """copy-symlink: the source is a link, and the container gets such a link instead of a mount."""
    need(case, "copy-symlink")
    case.mount("/mnt/link", link, "bind", "copy-symlink")
    said = case.shell("readlink /mnt/link; grep -c /mnt/link /proc/self/mountinfo || true")
    assert said.split() == [str(case.bundle / "file"), "0"]


def test_copied_again(case: Case, link: Path) -> None:
    """copy-symlink: a link that is there already and says the same is no error."""
    need(case, "copy-symlink")
    case.mount("/mnt/link", link, "bind", "copy-symlink")
    os.symlink(case.bundle / "file", case.rootfs / "mnt/link")
    assert case.shell("readlink /mnt/link") == str(case.bundle / "file")


def test_copied_file(case: Case, link: Path) -> None:
    """copy-symlink: what is no link is mounted."""
    need(case, "copy-symlink")
    case.mount("/mnt/file", link.parent / "file", "bind", "copy-symlink")
    assert case.shell("cat /mnt/file") == "content"


def test_copied_over_something(case: Case, link: Path) -> None:
    """copy-symlink: something else in the place of the link is an error."""
    need(case, "copy-symlink")
    case.mount("/mnt/link", link, "bind", "copy-symlink")
    os.symlink("/elsewhere", case.rootfs / "mnt/link")
    case.refused("true")


def test_source_is_not_followed(case: Case, link: Path) -> None:
    """src-nofollow: the link itself is mounted, not what it leads to."""
    need(case, "src-nofollow")
    case.mount("/mnt/link", link, "bind", "src-nofollow")
    assert case.shell("readlink /mnt/link") == str(case.bundle / "file")


def test_destination_is_not_followed(case: Case, link: Path) -> None:
    """dest-nofollow: a link in the container is mounted over, and nothing is made where it leads."""
    need(case, "dest-nofollow")
    os.symlink("/nowhere", case.rootfs / "mnt/target")
    case.mount("/mnt/target", link.parent / "file", "bind", "dest-nofollow")
    assert case.shell("cat /mnt/target") == "content"
    assert not (case.rootfs / "nowhere").exists()


def test_neither_is_followed(case: Case, link: Path) -> None:
    """src-nofollow with dest-nofollow: a link is mounted over a link."""
    need(case, "src-nofollow")
    need(case, "dest-nofollow")
    os.symlink("/nowhere", case.rootfs / "mnt/target")
    case.mount("/mnt/target", link, "bind", "src-nofollow", "dest-nofollow")
    assert case.shell("readlink /mnt/target") == str(case.bundle / "file")
