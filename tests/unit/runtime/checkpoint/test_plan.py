"""Which mounts and streams are the container's own, and which criu has to leave to us."""

from __future__ import annotations

import pytest

from runtime.plan.checkpoint import (
    External,
    Known,
    Stream,
    cgroup_externals,
    external_mounts,
    is_outside,
    outside_key,
    parse_mountinfo,
)
from runtime.plan.mounts import MountPlan

MOUNTINFO = r"""
20 1 254:0 /r / rw - ext4 /dev/vda rw
21 20 0:5 / /proc rw,nosuid shared:3 - proc proc rw
22 21 0:6 /null /proc/keys rw - devtmpfs devtmpfs rw
23 21 0:7 / /proc/acpi ro - tmpfs tmpfs rw
24 20 254:0 /srv /data rw - ext4 /dev/vda rw
25 24 0:8 / /data/with\040blank rw - tmpfs tmpfs rw
26 24 0:9 / /data/own rw - tmpfs tmpfs rw
27 20 0:10 / /sys/fs/cgroup ro - tmpfs tmpfs rw
28 27 0:29 /c /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu
29 27 0:38 /c /sys/fs/cgroup/unified ro - cgroup2 cgroup2 rw
30 20 0:40 / /mnt rw - tmpfs made-later rw
31 20 0:6 /null /dev/null rw - devtmpfs devtmpfs rw
nonsense
"""
PLANS = (
    MountPlan(destination="/proc", kind="new", fstype="proc"),
    MountPlan(destination="/link", kind="bind", source="/srv"),
    MountPlan(destination="/data/own", kind="new", fstype="tmpfs"),
    MountPlan(destination="/sys/fs/cgroup", kind="cgroup"),
)
KNOWN = Known(
    plans=PLANS,
    places=("/proc", "/data", "/data/own", "/sys/fs/cgroup"),
    masked=("/proc/keys", "/proc/acpi"),
    devices=("/dev/null",),
    cgroups=(("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/c"), ("", "/sys/fs/cgroup/unified/c")),
)


def test_mountinfo_is_read_and_unescaped() -> None:
    lines = parse_mountinfo(MOUNTINFO)
    assert [line.number for line in lines] == list(range(20, 32))
    assert lines[5].point == "/data/with blank"
    assert (lines[2].root, lines[2].fstype) == ("/null", "devtmpfs")


def test_binds_masks_devices_and_cgroups_come_from_outside() -> None:
    assert external_mounts(parse_mountinfo(MOUNTINFO), KNOWN) == (
        External(point="/proc/keys", source="/dev/null"),
        External(point="/data", under="/link"),
        External(point="/data/with blank", under="/link", inside="/with blank"),
        External(point="/sys/fs/cgroup/cpu,cpuacct", source="/sys/fs/cgroup/cpu,cpuacct/c"),
        External(point="/sys/fs/cgroup/unified", source="/sys/fs/cgroup/unified/c"),
        External(point="/dev/null", source="/dev/null"),
    )


def test_a_mount_over_another_belongs_to_the_last() -> None:
    twice = Known(
        plans=(MountPlan(destination="/a", kind="bind"), MountPlan(destination="/a", kind="new", fstype="tmpfs")),
        places=("/a", "/a"),
    )
    assert external_mounts(parse_mountinfo("1 0 0:1 / /a rw - tmpfs t rw"), twice) == ()
    assert external_mounts(parse_mountinfo("1 0 0:1 / /ab rw - tmpfs t rw"), twice) == ()


def test_cgroups_of_a_container_to_come() -> None:
    assert {one.point: one.source for one in cgroup_externals(KNOWN)} == {
        "/sys/fs/cgroup": "/sys/fs/cgroup/unified/c",
        "/sys/fs/cgroup/cpu,cpuacct": "/sys/fs/cgroup/cpu,cpuacct/c",
        "/sys/fs/cgroup/unified": "/sys/fs/cgroup/unified/c",
    }


@pytest.mark.parametrize(
    ("link", "mount", "device", "key"),
    [
        ("pipe:[123]", 15, 0, "pipe:[123]"),
        ("/dev/null", 99, 0x103, "file[63:2a]"),
        ("/dev/pts/0", 20, 0x8800, ""),
        ("/dev/pts/0", 99, 0x8800, "tty[8800:18]"),
        ("/dev/console", 99, 0x501, "tty[501:18]"),
        ("socket:[5]", 99, 0, ""),
        ("/var/log/x", 255, 0, "file[ff:2a]"),
    ],
)
def test_streams_from_outside(link: str, mount: int, device: int, key: str) -> None:
    """A terminal has a name of another form: criu does not take it by that of a file."""
    stream = Stream(link=link, mount=mount, inode=42, device=device, filesystem=0x18)
    assert outside_key(stream, frozenset((20, 21))) == key
    assert is_outside(key) == key.startswith(("file", "tty"))
