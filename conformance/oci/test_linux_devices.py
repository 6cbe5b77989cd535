"""Devices of the document, and the devices controller."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from conformance.oci.support import host

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config-linux.md#devices")
ALLOWED = "config-linux.md#allowed-device-list"
NULL = {"path": "/dev/judged", "type": "c", "major": 1, "minor": 3}


def device(case: Case, **parts: Any) -> None:
    """Add a device."""
    case.linux.setdefault("devices", []).append(NULL | parts)


def describe(case: Case, path: str = "/dev/judged") -> str:
    """Give kind, numbers, mode and owners of a file inside."""
    return case.shell(f"stat -c '%F %t %T %a %u %g' {path}")


def test_character(case: Case) -> None:
    """A character device has the numbers, mode and owners of the document."""
    device(case, major=10, minor=200, fileMode=0o640, uid=3, gid=4)
    assert describe(case) == "character special file a c8 640 3 4"


def test_block(case: Case) -> None:
    """So has a block device."""
    device(case, type="b", major=7, minor=90, fileMode=0o600, uid=0, gid=6)
    assert describe(case) == "block special file 7 5a 600 0 6"


def test_unbuffered(case: Case) -> None:
    """Type u is a character device."""
    device(case, type="u", fileMode=0o666)
    assert describe(case).startswith("character special file 1 3 666")


def test_fifo(case: Case) -> None:
    """Type p is a fifo and needs no numbers."""
    case.linux["devices"] = [{"path": "/dev/judged", "type": "p", "fileMode": 0o622, "uid": 5, "gid": 6}]
    found = describe(case)
    assert found.startswith("fifo")
    assert found.endswith("622 5 6")


@pytest.mark.parametrize("mode", [0o666, 0o600, 0o644, 0o444])
def test_mode(case: Case, mode: int) -> None:
    """The mode is not what an umask leaves of it."""
    device(case, fileMode=mode)
    assert describe(case).split(" ")[-3] == f"{mode:o}"


@pytest.mark.parametrize("path", ["/judged", "/etc/deep/judged", "/dev/sub/judged"])
def test_anywhere(case: Case, path: str) -> None:
    """A device may be anywhere, and its folder is made."""
    device(case, path=path, fileMode=0o666)
    assert describe(case, path).startswith("character special file 1 3")


def test_works(case: Case) -> None:
    """A device of the document can be used."""
    device(case, fileMode=0o666)
    assert case.shell("echo x > /dev/judged && echo yes") == "yes"


def test_default_again(case: Case) -> None:
    """A default device may be named too."""
    device(case, path="/dev/null", fileMode=0o666)
    assert describe(case, "/dev/null").startswith("character special file 1 3 666")


def test_no_device_for_the_host(case: Case) -> None:
    """The device is the container's: a tmpfs on /dev keeps it from the root of the host."""
    device(case, fileMode=0o666)
    case.shell("true")
    assert not (case.rootfs / "dev/judged").exists()


def test_link_out_of_the_root(case: Case) -> None:
    """A link in a device's path is resolved inside the root."""
    os.symlink("/tmp", case.rootfs / "link")
    name = f"judged-{case.id}"
    device(case, path=f"/link/{name}")
    case.run("true")
    assert not os.path.exists(f"/tmp/{name}")


def test_other_file_in_the_way(case: Case) -> None:
    """A file at the path that is not the device is an error."""
    (case.rootfs / "judged").write_text("a file")
    device(case, path="/judged")
    case.refused("true")


@pytest.mark.parametrize("kind", ["x", "", "char"])
def test_unknown_type(case: Case, kind: str) -> None:
    """A type that does not exist is an error."""
    device(case, type=kind)
    case.refused("true")


def test_in_a_user_namespace(case: Case) -> None:
    """A device of the host can be had in a user namespace, where it cannot be made."""
    host.need_user_namespaces()
    case.userns()
    device(case, path="/dev/null2" if os.path.exists("/dev/null2") else "/dev/full", minor=7)
    assert case.shell("test -c /dev/full && echo yes") == "yes"


def rules(case: Case, *entries: dict[str, Any]) -> None:
    """Set the list of the devices controller."""
    host.need_controller("devices")
    case.resources(devices=list(entries))


DENY = {"allow": False, "access": "rwm"}


def make(case: Case, path: str, kind: int, major: int, minor: int) -> None:
    """Make a device in the root, as the host."""
    os.mknod(case.rootfs / path, kind | 0o666, os.makedev(major, minor))
    os.chmod(case.rootfs / path, 0o666)
    case.grant("CAP_SYSLOG", "CAP_SYS_ADMIN")  # the log device asks for more than its mode


def can(case: Case, script: str) -> bool:
    """Tell whether a script succeeds inside."""
    return case.run("sh", "-c", script).returncode == 0


@pytest.mark.rule(ALLOWED)
def test_denied(case: Case) -> None:
    """A device that is not allowed cannot be opened, whatever its mode."""
    rules(case, DENY)
    make(case, "kmsg", stat.S_IFCHR, 1, 11)
    assert not can(case, "head -c 1 /kmsg > /dev/null")


@pytest.mark.rule(ALLOWED)
@pytest.mark.parametrize("name", ["null", "zero", "full", "random", "urandom", "tty"])
def test_default_devices_stay_allowed(case: Case, name: str) -> None:
    """The default devices can be used though all is denied."""
    rules(case, DENY)
    script = "exit 0" if name == "tty" else f"head -c 1 /dev/{name} > /dev/null"
    assert can(case, script)


@pytest.mark.rule(ALLOWED)
@pytest.mark.parametrize(("access", "reads", "writes"), [("r", True, False), ("w", False, True), ("rw", True, True)])
def test_access(case: Case, access: str, reads: bool, writes: bool) -> None:
    """Reading and writing are allowed apart."""
    rules(case, DENY, {"allow": True, "type": "c", "major": 1, "minor": 11, "access": access})
    make(case, "kmsg", stat.S_IFCHR, 1, 11)
    assert can(case, "true < /kmsg") == reads
    assert can(case, "true > /kmsg") == writes


@pytest.mark.rule(ALLOWED)
def test_mknod(case: Case) -> None:
    """Making devices is allowed by m, which opens none."""
    case.grant("CAP_MKNOD")
    rules(case, DENY, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "m"})
    assert can(case, "mknod /new c 10 229")


@pytest.mark.rule(ALLOWED)
def test_block_rule_is_not_for_characters(case: Case) -> None:
    """A rule for block devices says nothing of character devices."""
    rules(case, DENY, {"allow": True, "type": "b", "major": 1, "minor": 11, "access": "rwm"})
    make(case, "kmsg", stat.S_IFCHR, 1, 11)
    assert not can(case, "true < /kmsg")


@pytest.mark.rule(ALLOWED)
def test_any_minor(case: Case) -> None:
    """Without a minor number a rule is for all of them."""
    rules(case, DENY, {"allow": True, "type": "c", "major": 1, "access": "rwm"})
    make(case, "kmsg", stat.S_IFCHR, 1, 11)
    assert can(case, "true < /kmsg")


@pytest.mark.rule(ALLOWED)
def test_all_allowed(case: Case) -> None:
    """A rule without type and numbers is for every device."""
    rules(case, {"allow": True, "access": "rwm"})
    make(case, "kmsg", stat.S_IFCHR, 1, 11)
    assert can(case, "true < /kmsg")


@pytest.mark.rule(ALLOWED)
def test_order(case: Case) -> None:
    """Rules are applied in the order of the list: a later one overrides."""
    rules(
        case,
        {"allow": True, "access": "rwm"},
        {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "rwm"},
    )
    make(case, "kmsg", stat.S_IFCHR, 1, 11)
    assert not can(case, "true < /kmsg")


@pytest.mark.rule(ALLOWED)
def test_pseudo_terminals_stay_allowed(case: Case) -> None:
    """Terminals can be opened though all is denied."""
    rules(case, DENY)
    assert can(case, "true < /dev/ptmx")


@pytest.mark.rule(ALLOWED)
def test_exec_is_under_the_rules(case: Case) -> None:
    """The rules hold for processes of `exec`."""
    rules(case, DENY)
    make(case, "kmsg", stat.S_IFCHR, 1, 11)
    name = case.sleeper()
    assert case.call("exec", name, "sh", "-c", "true < /kmsg").returncode != 0
