"""The container's root and the bundle it is in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support.probe import mount_at

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config.md#root")


def test_relative_path(case: Case) -> None:
    """A relative root.path is below the bundle, whatever the caller's working directory."""
    name = case.new_id()
    (case.rootfs / "here").write_text("yes")
    case.write("cat", "/here")
    assert case.ok("run", "--bundle", str(case.bundle), name, cwd="/") == "yes"


def test_absolute_path(case: Case) -> None:
    """An absolute root.path is taken as it is."""
    case.config["root"]["path"] = str(case.rootfs)
    assert case.shell("echo yes") == "yes"


def test_other_name(case: Case) -> None:
    """The root may have another name than rootfs."""
    os.rename(case.rootfs, case.bundle / "elsewhere")
    case.config["root"]["path"] = "elsewhere"
    assert case.shell("echo yes") == "yes"


def test_the_bundle_itself(case: Case) -> None:
    """The root may be the bundle's folder."""
    for name in os.listdir(case.rootfs):
        os.rename(case.rootfs / name, case.bundle / name)
    case.config["root"]["path"] = "."
    assert "config.json" in case.shell("ls /")


def test_not_a_directory(case: Case) -> None:
    """A root.path that is a file is an error."""
    (case.bundle / "file").write_text("")
    case.config["root"]["path"] = "file"
    case.refused("true")


def test_symlink(case: Case) -> None:
    """A root.path that is a link to a directory is that directory, or refused: nothing else is mounted instead."""
    os.rename(case.rootfs, case.bundle / "real")
    os.symlink("real", case.rootfs)
    (case.bundle / "real/here").write_text("yes")
    done = case.run("cat", "/here")
    assert done.stdout == ("yes" if done.returncode == 0 else "")


def test_writable_by_default(case: Case) -> None:
    """Without `readonly` the root can be written."""
    case.shell("echo text > /written")
    assert (case.rootfs / "written").read_text() == "text\n"


def test_readonly_false(case: Case) -> None:
    """With readonly false the root can be written."""
    case.config["root"]["readonly"] = False
    case.shell("echo text > /written")
    assert (case.rootfs / "written").exists()


def test_readonly(case: Case) -> None:
    """With readonly true nothing can be written, removed or changed in the root."""
    case.config["root"]["readonly"] = True
    (case.rootfs / "present").write_text("old")
    said = case.shell(
        "for c in 'touch /new' 'rm /present' 'chmod 777 /present' 'mkdir /etc/x'; do $c 2>&1 && echo BAD; done; :"
    )
    assert "BAD" not in said
    assert said.count("Read-only file system") == 4


def test_readonly_is_a_mount_option(case: Case) -> None:
    """A read-only root is read-only in the mount table."""
    case.config["root"]["readonly"] = True
    assert "ro" in mount_at(case.shell("cat /proc/self/mountinfo"), "/").options


def test_readonly_root_writable_mounts(case: Case) -> None:
    """Mounts in a read-only root have their own options."""
    case.config["root"]["readonly"] = True
    case.mount("/tmp", "tmpfs", kind="tmpfs")
    assert case.shell("echo ok > /tmp/x; cat /tmp/x") == "ok"


def test_readonly_leaves_the_host_alone(case: Case) -> None:
    """A read-only root can still be written by the host while the container runs."""
    case.config["root"]["readonly"] = True
    case.sleeper()
    (case.rootfs / "by-the-host").write_text("")


def test_nothing_above_the_root(case: Case) -> None:
    """`..` of the root is the root; the host's files are not there."""
    (case.bundle / "outside").write_text("secret")
    said = case.shell("cd /; cd ..; pwd; ls; ls /.. ; cat /../outside 2>&1 || :")
    assert "secret" not in said
    assert "config.json" not in said


def test_root_is_no_chroot(case: Case) -> None:
    """The old root is gone from the mount table: what is mounted is below the new root, whose mount is first."""
    lines = case.shell("cat /proc/self/mountinfo").splitlines()
    assert lines[0].split(" ")[4] == "/"
    assert not [line for line in lines if str(case.bundle) in line.split(" ")[4]]


def test_escape_through_open_directory(case: Case) -> None:
    """No descriptor of a directory of the host is open in the program."""
    said = case.shell("for place in /proc/1/fd/* /proc/self/fd/* /proc/1/cwd /proc/1/root; do readlink $place || :; done")
    assert not [line for line in said.splitlines() if line.startswith("/") and line not in {"/", "/dev/null", "/proc/self/fd"}]


@pytest.mark.rule("bundle.md#container-format")
def test_config_must_be_there(case: Case) -> None:
    """A bundle without config.json is an error."""
    case.fails("run", case.new_id())


@pytest.mark.rule("bundle.md#container-format")
def test_config_must_be_json(case: Case) -> None:
    """A config.json that is no JSON is an error."""
    (case.bundle / "config.json").write_text("{ not json")
    assert "Traceback" not in case.fails("run", case.new_id())


@pytest.mark.rule("bundle.md#container-format")
def test_default_bundle(case: Case) -> None:
    """Without --bundle it is the working directory."""
    assert case.shell("echo yes") == "yes"


@pytest.mark.rule("bundle.md#container-format")
def test_bundle_with_odd_name(case: Case) -> None:
    """A bundle's path may have spaces, quotes and letters beyond ASCII."""
    odd = case.bundle / "an odd 'näme' \"%s\""
    odd.mkdir()
    os.rename(case.rootfs, odd / "rootfs")
    name = case.new_id()
    case.write("echo", "yes")
    os.rename(case.bundle / "config.json", odd / "config.json")
    assert case.ok("run", "--bundle", str(odd), name) == "yes\n"


@pytest.mark.rule("config.md#specification-version")
@pytest.mark.parametrize("version", ["1.0.0", "1.0.2", "1.1.0"])
def test_version(case: Case, version: str) -> None:
    """Documents of the versions since 1.0 are run."""
    case.config["ociVersion"] = version
    assert case.shell("echo yes") == "yes"


@pytest.mark.rule("config.md#specification-version")
@pytest.mark.parametrize("version", ["", "nonsense"])
def test_invalid_version(case: Case, version: str) -> None:
    """A version that is no semantic version is an error."""
    case.config["ociVersion"] = version
    case.refused("true")
