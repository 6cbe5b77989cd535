"""Default file systems, devices and links, and what a plain container may and may not do with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from conformance.oci.support.probe import mount_at, script, sections

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config-linux.md#default-filesystems")
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


@pytest.fixture(scope="module")
def seen(shared: Callable[[], Case]) -> dict[str, str]:
    """Look around in a plain container once."""
    return sections(
        shared().shell(
            script(
                table="cat /proc/self/mountinfo",
                devices="for d in null zero full random urandom tty; do stat -c '%n %F %t %T %a %u %g' /dev/$d; done",
                ptmx="ls -ld /dev/ptmx; readlink /dev/ptmx; test -c /dev/ptmx && echo device",
                console="test -e /dev/console && echo there || echo absent",
                null="echo x > /dev/null && head -c 1 /dev/null | wc -c",
                zero="head -c 4 /dev/zero | od -An -tx1",
                full="echo x > /dev/full || echo refused",
                urandom="head -c 9 /dev/urandom | wc -c; head -c 2 /dev/random | wc -c",
                all="ls /dev",
                pts="ls /dev/pts",
                shm="echo x > /dev/shm/x && cat /dev/shm/x",
                sys="ls /sys/class/net; touch /sys/x",
                proc="ls -d /proc/1 /proc/self/status; cat /proc/1/comm; ls -d /proc/[0-9]* | wc -l",
            )
        )
    )


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/proc", "proc"), ("/sys", "sysfs"), ("/dev", "tmpfs"), ("/dev/pts", "devpts"), ("/dev/shm", "tmpfs")],
)
def test_file_system(seen: dict[str, str], path: str, kind: str) -> None:
    """The file systems every program expects are where the document says."""
    assert mount_at(seen["table"], path).kind == kind


def test_proc(seen: dict[str, str]) -> None:
    """/proc shows the container's own processes, and no other's."""
    assert int(seen["proc"].splitlines()[-1]) < 6


def test_sys_is_read_only(seen: dict[str, str]) -> None:
    """/sys is mounted with the options of the document, and shows the container's own network."""
    assert seen["sys"].splitlines()[0] == "lo"
    assert "Read-only" in seen["sys"]


def test_shm(seen: dict[str, str]) -> None:
    """/dev/shm can be written."""
    assert seen["shm"] == "x"


@pytest.mark.rule("config-linux.md#default-devices")
@pytest.mark.parametrize("name", DEVICES)
def test_device(seen: dict[str, str], name: str) -> None:
    """The default devices are character devices of the known numbers that everybody may use."""
    lines = {line.split(" ")[0]: line for line in seen["devices"].splitlines()}
    major, minor = DEVICES[name]
    assert lines[f"/dev/{name}"] == f"/dev/{name} character special file {major:x} {minor:x} 666 0 0"


@pytest.mark.rule("config-linux.md#default-devices")
def test_null_works(seen: dict[str, str]) -> None:
    """/dev/null swallows and gives nothing."""
    assert seen["null"] == "0"


@pytest.mark.rule("config-linux.md#default-devices")
def test_zero_works(seen: dict[str, str]) -> None:
    """/dev/zero gives zeros."""
    assert seen["zero"].split() == ["00"] * 4


@pytest.mark.rule("config-linux.md#default-devices")
def test_full_works(seen: dict[str, str]) -> None:
    """/dev/full is full."""
    assert "refused" in seen["full"]


@pytest.mark.rule("config-linux.md#default-devices")
def test_random_works(seen: dict[str, str]) -> None:
    """/dev/random and /dev/urandom give bytes."""
    assert seen["urandom"].split() == ["9", "2"]


@pytest.mark.rule("config-linux.md#default-devices")
def test_ptmx(seen: dict[str, str]) -> None:
    """/dev/ptmx is that of the container's devpts."""
    assert "pts/ptmx" in seen["ptmx"] or "device" in seen["ptmx"]


@pytest.mark.rule("config-linux.md#default-devices")
def test_no_console_without_terminal(seen: dict[str, str]) -> None:
    """Without a terminal there is no console (an empty file at most)."""
    assert seen["console"] in {"absent", "there"}
    assert "/dev/console" not in seen["table"]


@pytest.mark.rule("config-linux.md#devices")
def test_no_other_device(seen: dict[str, str]) -> None:
    """No other device of the host is there."""
    known = {"console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout"}
    assert set(seen["all"].split()) <= known | {"tty", "urandom", "zero"}


def test_pts_is_its_own(seen: dict[str, str]) -> None:
    """A new instance of devpts has no terminal of the host's."""
    assert seen["pts"].split() == ["ptmx"]


@pytest.mark.rule("config-linux.md#default-devices")
def test_devices_without_dev_mount(case: Case) -> None:
    """The default devices are supplied whether or not /dev is a mount."""
    case.config["mounts"] = [entry for entry in case.config["mounts"] if not entry["destination"].startswith("/dev")]
    assert case.shell("for d in null zero full random urandom tty; do test -c /dev/$d && echo $d; done").split() == list(
        DEVICES
    )


@pytest.mark.rule("config-linux.md#default-devices")
def test_ready_made_dev(case: Case) -> None:
    """A /dev that is bound from the host is left as it is."""
    case.config["mounts"] = [entry for entry in case.config["mounts"] if not entry["destination"].startswith("/dev")]
    case.mount("/dev", "/dev", "rbind", "ro")
    assert case.shell("test -c /dev/null && echo yes") == "yes"


def test_sys_with_cgroups(case: Case) -> None:
    """A cgroup mount shows the hierarchy, read-only when asked for."""
    case.mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro", kind="cgroup")
    said = sections(
        case.shell(script(list="ls /sys/fs/cgroup", write="mkdir /sys/fs/cgroup/new", table="cat /proc/self/mountinfo"))
    )
    assert said["list"]
    assert "Read-only" in said["write"] or "denied" in said["write"]
    assert mount_at(said["table"], "/sys/fs/cgroup").kind in {"tmpfs", "cgroup2"}


def test_cgroup_mount_is_of_the_container(case: Case) -> None:
    """With a cgroup namespace the cgroup mount begins at the container's own cgroup."""
    case.namespace("cgroup")
    case.mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro", kind="cgroup")
    find = "cat /sys/fs/cgroup/pids/cgroup.procs 2>/dev/null || cat /sys/fs/cgroup/cgroup.procs"
    assert "1" in case.shell(find).split()
