"""Every option that the table of Linux mount options names."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support import host
from conformance.oci.support.probe import Mount, mount_at, mounts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config.md#linux-mount-options")
TABLE = "cat /proc/self/mountinfo"
FLAGS: dict[str, tuple[set[str], set[str]]] = {
    "ro": ({"ro"}, {"rw"}),
    "rw": ({"rw"}, {"ro"}),
    "nosuid": ({"nosuid"}, set()),
    "suid": (set(), {"nosuid"}),
    "nodev": ({"nodev"}, set()),
    "dev": (set(), {"nodev"}),
    "noexec": ({"noexec"}, set()),
    "exec": (set(), {"noexec"}),
    "noatime": ({"noatime"}, {"relatime"}),
    "atime": (set(), {"noatime"}),
    "relatime": ({"relatime"}, {"noatime"}),
    "norelatime": (set(), {"noatime"}),
    "strictatime": (set(), {"relatime", "noatime"}),
    "nostrictatime": (set(), {"noatime"}),
    "nodiratime": ({"nodiratime"}, set()),
    "diratime": (set(), {"nodiratime"}),
    "nosymfollow": ({"nosymfollow"}, set()),
    "symfollow": (set(), {"nosymfollow"}),
    "defaults": ({"rw"}, {"ro", "nosuid", "nodev", "noexec"}),
}
"""Per-mount options: what the mount table must show, and what it must not."""
SUPER = {
    "sync": "sync",
    "async": None,
    "dirsync": "dirsync",
    "lazytime": "lazytime",
    "nolazytime": None,
    "iversion": None,
    "noiversion": None,
    "mand": None,
    "nomand": None,
    "silent": None,
    "loud": None,
}
"""Options of the file system: what the mount table must show of it (some show nothing)."""
RECURSIVE = {
    "rro": "ro",
    "rnosuid": "nosuid",
    "rnodev": "nodev",
    "rnoexec": "noexec",
    "rnodiratime": "nodiratime",
    "rnoatime": "noatime",
    "rrelatime": "relatime",
    "rnosymfollow": "nosymfollow",
}
CLEARING = {
    "rrw": "ro",
    "rsuid": "nosuid",
    "rdev": "nodev",
    "rexec": "noexec",
    "rdiratime": "nodiratime",
    "rsymfollow": "nosymfollow",
}


def check(case: Case, option: str) -> None:
    """Judge the flags of what is mounted on /mnt."""
    present, absent = FLAGS[option]
    found = mount_at(case.shell(TABLE), "/mnt").options
    assert present <= found
    assert not absent & found


@pytest.mark.parametrize("option", FLAGS)
def test_flag(case: Case, option: str) -> None:
    """The option sets, or clears, its flag of the mount."""
    case.mount("/mnt", "tmpfs", option, kind="tmpfs")
    check(case, option)


@pytest.mark.parametrize("option", SUPER)
def test_super_option(case: Case, option: str) -> None:
    """The option is one of the file system; it is understood, and shown where the kernel shows it."""
    case.mount("/mnt", "tmpfs", option, kind="tmpfs")
    wanted = SUPER[option]
    found = mount_at(case.shell(TABLE), "/mnt").super_options
    assert wanted is None or wanted in found


@pytest.mark.parametrize("option", FLAGS)
def test_flag_of_a_bind_mount(case: Case, option: str) -> None:
    """A bind mount, whose flags the kernel ignores at first, has the flag all the same."""
    (case.bundle / "source").mkdir()
    case.mount("/mnt", case.bundle / "source", "bind", option)
    check(case, option)


@pytest.mark.parametrize(
    "options", [["ro", "rw"], ["rw", "ro"], ["noexec", "exec"], ["nosuid", "suid", "nosuid"]], ids="-".join
)
def test_last_one_wins(case: Case, options: list[str]) -> None:
    """Of contradicting options the last holds, as in mount(8)."""
    case.mount("/mnt", "tmpfs", *options, kind="tmpfs")
    check(case, options[-1])


def test_read_only_is_enforced(case: Case) -> None:
    """Nothing can be written to a mount that is ro; the source stays writable for the host."""
    (case.bundle / "source").mkdir()
    case.mount("/mnt", case.bundle / "source", "bind", "ro")
    assert "Read-only" in case.shell("touch /mnt/x 2>&1 || :")
    (case.bundle / "source/by-the-host").write_text("")


def test_no_exec_is_enforced(case: Case) -> None:
    """Nothing can be executed from a mount that is noexec."""
    (case.bundle / "source").mkdir()
    (case.bundle / "source/script").write_text("#!/bin/sh\necho ran\n")
    os.chmod(case.bundle / "source/script", 0o755)
    case.mount("/mnt", case.bundle / "source", "bind", "noexec")
    assert "ran" not in case.shell("/mnt/script 2>&1 || :").splitlines()


@pytest.mark.parametrize("word", ["private", "shared", "slave", "unbindable"])
@pytest.mark.parametrize("recursive", ["", "r"], ids=["one", "all"])
def test_propagation(case: Case, word: str, recursive: str) -> None:
    """The propagation of a mount is what was asked for."""
    (case.bundle / "source").mkdir()
    if word == "slave":  # a slave has a master: the runtime's own namespace must offer one
        case.linux["rootfsPropagation"] = "slave"
        master = f'mount -t tmpfs tmpfs {case.bundle}/source && exec "$0" "$@"'
        case.prefix = ["unshare", "-m", "--propagation", "shared", "sh", "-c", master]
    case.mount("/mnt", case.bundle / "source", "rbind", f"{recursive}{word}")
    assert mount_at(case.shell(TABLE), "/mnt").propagation == word


def test_remount(case: Case) -> None:
    """`remount` changes the flags of what is mounted already."""
    case.mount("/mnt", "tmpfs", kind="tmpfs")
    case.mount("/mnt", "tmpfs", "remount", "ro", kind="tmpfs")
    table = case.shell(TABLE)
    assert "ro" in mount_at(table, "/mnt").options
    assert len([mount for mount in mounts(table) if mount.destination == "/mnt"]) == 1


@pytest.fixture
def tree(case: Case) -> Iterator[Path]:
    """Make a folder of the host with two file systems in it: the second has flags to be cleared."""
    host.need(host.kernel() >= (5, 12), "mount_setattr(2), Linux 5.12")
    folder = case.bundle / "tree"
    for inner in (folder / "plain", folder / "strict"):
        inner.mkdir(parents=True)
    flags = "ro,nosuid,nodev,noexec,nodiratime"
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder / "plain"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", flags, "tmpfs", folder / "strict"], check=True)
    yield folder
    for name in ("plain", "strict"):
        subprocess.run(["umount", "-l", folder / name], check=False, capture_output=True)


def bind(case: Case, tree: Path, *options: str) -> dict[str, Mount]:
    """Bind the tree; give the three mounts of it."""
    case.mount("/mnt", tree, "rbind", *options)
    table = case.shell(TABLE)
    for inner in ("plain", "strict"):
        subprocess.run(["umount", "-l", tree / inner], check=True)
    return {name: mount_at(table, f"/mnt/{name}".rstrip("/")) for name in ("", "plain", "strict")}


@pytest.mark.parametrize("option", RECURSIVE)
def test_recursive(case: Case, tree: Path, option: str) -> None:
    """The option reaches every mount below."""
    assert all(RECURSIVE[option] in mount.options for mount in bind(case, tree, option).values())


@pytest.mark.parametrize("option", CLEARING)
def test_recursive_clearing(case: Case, tree: Path, option: str) -> None:
    """The option clears its flag on every mount below."""
    assert not any(CLEARING[option] in mount.options for mount in bind(case, tree, option).values())


@pytest.mark.parametrize("option", ["ratime", "rstrictatime", "rnostrictatime", "rnorelatime"])
def test_recursive_access_times(case: Case, tree: Path, option: str) -> None:
    """The options of access times are understood, and forbid none."""
    assert not any("noatime" in mount.options for mount in bind(case, tree, option).values())


def test_not_recursive(case: Case, tree: Path) -> None:
    """`ro` of an rbind mount is that mount's alone."""
    found = bind(case, tree, "ro")
    assert "ro" in found[""].options
    assert "ro" not in found["plain"].options


def test_recursive_with_others(case: Case, tree: Path) -> None:
    """`ro` beside `rro` does not weaken it."""
    assert all("ro" in mount.options for mount in bind(case, tree, "ro", "rro").values())


def test_source_keeps_its_flags(case: Case, tree: Path) -> None:
    """What is done to the container's mounts is not done to the host's."""
    case.mount("/mnt", tree, "rbind", "rro")
    case.run("true")
    (tree / "plain/new").write_text("")
    for inner in ("plain", "strict"):
        subprocess.run(["umount", tree / inner], check=True)
