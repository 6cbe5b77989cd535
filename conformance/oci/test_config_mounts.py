"""Mounts: what is mounted where, in which order, and what a runtime makes of sources and destinations."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support.probe import mount_at, mounts

if TYPE_CHECKING:
    from pathlib import Path

    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config.md#mounts")
TABLE = "cat /proc/self/mountinfo"


def test_bind(case: Case, source: Path) -> None:
    """A bind mount shows the source, and what is written goes there."""
    case.mount("/mnt", source, "bind")
    assert case.shell("cat /mnt/file; echo new > /mnt/file") == "host's"
    assert (source / "file").read_text() == "new\n"


def test_bind_of_a_file(case: Case, source: Path) -> None:
    """A file can be mounted on a file."""
    case.mount("/etc/passwd", source / "file", "bind")
    assert case.shell("cat /etc/passwd") == "host's"


def test_bind_relative_source(case: Case, source: Path) -> None:
    """A relative source of a bind mount is below the bundle."""
    case.mount("/mnt", source.name, "bind")
    name = case.new_id()
    case.write("cat", "/mnt/file")
    assert case.ok("run", "--bundle", str(case.bundle), name, cwd="/") == "host's\n"


@pytest.mark.parametrize("kind", ["bind", "none", "", None])
def test_bind_by_its_option(case: Case, source: Path, kind: str | None) -> None:
    """A mount is a bind mount by its option; its type is a dummy and may be absent."""
    entry = case.mount("/mnt", source, "bind")
    entry.pop("type")
    if kind is not None:
        entry["type"] = kind
    assert case.shell("cat /mnt/file") == "host's"


def test_source_absent(case: Case) -> None:
    """A source that does not exist is an error."""
    case.mount("/mnt", case.bundle / "absent", "bind")
    case.refused("true")


def test_destination_is_made(case: Case, source: Path) -> None:
    """A destination that does not exist is made, with all that leads to it."""
    case.mount("/a/deep/place", source, "bind")
    assert case.shell("cat /a/deep/place/file") == "host's"


def test_destination_file_is_made(case: Case, source: Path) -> None:
    """For a file the destination that is made is a file."""
    case.mount("/new/name", source / "file", "bind")
    assert case.shell("test -f /new/name; cat /new/name") == "host's"


def test_directory_on_a_file(case: Case, source: Path) -> None:
    """A directory cannot be mounted on a file."""
    case.mount("/etc/passwd", source, "bind")
    case.refused("true")


def test_relative_destination(case: Case, source: Path) -> None:
    """A relative destination is below the root."""
    case.mount("mnt/below", source, "bind")
    assert case.shell("cat /mnt/below/file") == "host's"


@pytest.mark.parametrize("destination", ["//mnt///x", "/mnt/./x", "/mnt/y/../x"])
def test_odd_destination(case: Case, source: Path, destination: str) -> None:
    """Empty and dotted parts of a destination mean what they mean in any path."""
    case.mount(destination, source, "bind")
    assert case.shell("cat /mnt/x/file") == "host's"


def test_destination_above_the_root(case: Case, source: Path) -> None:
    """A destination cannot leave the root by `..`."""
    case.mount("/../../mnt/x", source, "bind")
    case.run("true")
    assert not (case.bundle / "mnt").exists()
    assert not (case.bundle.parent / "mnt").exists()


def test_destination_link_inside(case: Case, source: Path) -> None:
    """A link in a destination is followed inside the root."""
    (case.rootfs / "target").mkdir()
    os.symlink("/target", case.rootfs / "link")
    case.mount("/link/x", source, "bind")
    assert case.shell("cat /target/x/file") == "host's"


@pytest.mark.parametrize("target", ["/tmp", "../../../../tmp"])
def test_destination_link_outside(case: Case, source: Path, target: str) -> None:
    """A link that points out of the root is resolved inside it: nothing of the host is touched."""
    os.symlink(target, case.rootfs / "link")
    name = f"judge-{case.id}"
    case.mount(f"/link/{name}", source, "bind")
    case.run("true")
    assert not os.path.exists(f"/tmp/{name}")


def test_dangling_link(case: Case, source: Path) -> None:
    """A link to nothing is no way out either."""
    os.symlink("/not/there", case.rootfs / "link")
    case.mount("/link", source, "bind")
    case.run("true")
    assert not os.path.exists("/not/there")


def test_order(case: Case, source: Path) -> None:
    """Entries are mounted in the order of the list: a later one lies on an earlier one."""
    case.mount("/mnt", "tmpfs", kind="tmpfs")
    case.mount("/mnt/inner", source, "bind")
    assert case.shell("ls /mnt; cat /mnt/inner/file") == "inner\nhost's"


def test_order_reversed(case: Case, source: Path) -> None:
    """What is mounted first is hidden by what is mounted over it later."""
    case.mount("/mnt/inner", source, "bind")
    case.mount("/mnt", "tmpfs", kind="tmpfs")
    assert case.shell("ls /mnt") == ""


def test_same_destination_twice(case: Case, source: Path) -> None:
    """Of two mounts on one place the later is seen."""
    case.mount("/mnt", "tmpfs", kind="tmpfs")
    case.mount("/mnt", source, "bind")
    assert case.shell("cat /mnt/file") == "host's"


def test_bind_is_not_recursive(case: Case) -> None:
    """`bind` brings what is mounted below the source only with `rbind`."""
    case.mount("/mnt", "/sys", "bind")
    case.mount("/root", "/sys", "rbind")
    table = case.shell(TABLE)
    assert not [mount for mount in mounts(table) if mount.destination.startswith("/mnt/")]
    inside = [mount for mount in mounts(table) if mount.destination.startswith("/root/")]
    assert bool(inside) == any(mount.destination.startswith("/sys/") for mount in mounts(_own_table()))


def _own_table() -> str:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return file.read()


def test_tmpfs(case: Case) -> None:
    """A tmpfs is empty, of its own, and gone with the container."""
    (case.rootfs / "mnt/below").write_text("hidden")
    case.mount("/mnt", "tmpfs", kind="tmpfs")
    table = case.shell(f"{TABLE}; echo x > /mnt/new; ls /mnt")
    assert mount_at(table, "/mnt").kind == "tmpfs"
    assert table.endswith("\nnew")
    assert not (case.rootfs / "mnt/new").exists()


def test_tmpfs_options(case: Case) -> None:
    """Options that are none of mount(8)'s are the file system's own."""
    case.mount("/mnt", "tmpfs", "size=1024k", "mode=1750", "uid=7", "gid=8", "nr_inodes=99", kind="tmpfs")
    table = case.shell(f"{TABLE}; stat -c '%a %u %g' /mnt")
    assert {"size=1024k", "nr_inodes=99"} <= mount_at(table, "/mnt").super_options
    assert table.endswith("\n1750 7 8")


def test_tmpfs_mode_is_inherited(case: Case) -> None:
    """Without mode= a tmpfs has the mode of the directory it covers."""
    os.chmod(case.rootfs / "mnt", 0o1711)
    case.mount("/mnt", "tmpfs", kind="tmpfs")
    assert case.shell("stat -c %a /mnt") == "1711"


def test_tmpfs_new_destination(case: Case) -> None:
    """A tmpfs on a place that does not exist can be written by anybody, as /tmp can."""
    case.mount("/fresh", "tmpfs", kind="tmpfs")
    assert case.shell("stat -c %a /fresh") in {"755", "1777"}


def test_tmpfs_source(case: Case) -> None:
    """The source of a file system without a device is the name the mount table shows."""
    case.mount("/mnt", "judged", kind="tmpfs")
    assert mount_at(case.shell(TABLE), "/mnt").source == "judged"


def test_tmpfs_bad_option(case: Case) -> None:
    """An option that the file system does not know is an error."""
    case.mount("/mnt", "tmpfs", "size=many", kind="tmpfs")
    case.refused("true")


def test_unknown_file_system(case: Case) -> None:
    """A type that the kernel does not know is an error."""
    case.mount("/mnt", "none", kind="judgefs")
    case.refused("true")


def test_copy_up(case: Case) -> None:
    """tmpcopyup fills a tmpfs with what it covers, owners and modes as they were."""
    (case.rootfs / "mnt/one").write_text("text\n")
    (case.rootfs / "mnt/sub").mkdir()
    (case.rootfs / "mnt/sub/two").write_text("more\n")
    os.chown(case.rootfs / "mnt/one", 12, 34)
    os.chmod(case.rootfs / "mnt/one", 0o644)
    os.symlink("one", case.rootfs / "mnt/link")
    case.mount("/mnt", "tmpfs", "tmpcopyup", kind="tmpfs")
    script = "cat /mnt/link /mnt/sub/two; stat -c '%a %u %g' /mnt/one; rm /mnt/one; echo gone > /mnt/one"
    assert case.shell(script) == "text\nmore\n644 12 34"
    assert (case.rootfs / "mnt/one").read_text() == "text\n"


def test_socket(case: Case) -> None:
    """A unix socket can be mounted."""
    path = case.bundle / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        case.mount("/run/socket", path, "bind")
        assert case.shell("test -S /run/socket; echo yes") == "yes"


def test_fifo(case: Case) -> None:
    """A fifo can be mounted, and nobody waits for its other end."""
    os.mkfifo(case.bundle / "fifo")
    case.mount("/run/fifo", case.bundle / "fifo", "bind")
    assert case.shell("test -p /run/fifo; echo yes") == "yes"


def test_source_link(case: Case, source: Path) -> None:
    """A source that is a link means what it points to."""
    os.symlink(source.name, case.bundle / "link")
    case.mount("/mnt", case.bundle / "link", "bind")
    assert case.shell("cat /mnt/file") == "host's"


def test_mqueue(case: Case) -> None:
    """The message queues' file system can be mounted."""
    case.mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev", kind="mqueue")
    assert mount_at(case.shell(TABLE), "/dev/mqueue").kind == "mqueue"


def test_overlay(case: Case) -> None:
    """An overlay can be mounted, with its directories as the file system's options."""
    for name in ("lower", "upper", "work"):
        (case.bundle / name).mkdir()
    (case.bundle / "lower/file").write_text("below\n")
    options = [
        f"{word}={case.bundle / name}" for word, name in (("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work"))
    ]
    with open("/proc/filesystems", encoding="ascii") as file:
        if "\toverlay\n" not in file.read():
            pytest.skip("host: no overlay file system")
    case.mount("/mnt", "overlay", *options, kind="overlay")
    assert case.shell("cat /mnt/file; echo new > /mnt/file") == "below"
    assert (case.bundle / "upper/file").read_text() == "new\n"
    assert (case.bundle / "lower/file").read_text() == "below\n"


def test_no_mounts(case: Case) -> None:
    """Without mounts the root alone is there, and the program runs in it."""
    case.config["mounts"] = []
    assert "bin" in case.shell("ls /")


def test_host_does_not_see_them(case: Case) -> None:
    """What a container mounts is mounted in its own mount namespace."""
    case.mount("/mnt", "tmpfs", kind="tmpfs")
    case.sleeper()
    assert str(case.rootfs / "mnt") not in _own_table()


def test_words_for_the_default(case: Case) -> None:
    """The many words for what is the default are accepted."""
    case.mount("/mnt", "tmpfs", "rw", "defaults", "loud", "async", "nolazytime", kind="tmpfs")
    assert case.shell("echo x > /mnt/x; echo yes") == "yes"


def test_set_group_id_of_the_root(case: Case) -> None:
    """Destinations that are made in a root with the set-group-ID bit do not hinder the mount."""
    os.chmod(case.rootfs, 0o2755)
    case.mount("/made/for/it", "tmpfs", kind="tmpfs")
    assert mount_at(case.shell(TABLE), "/made/for/it").kind == "tmpfs"
