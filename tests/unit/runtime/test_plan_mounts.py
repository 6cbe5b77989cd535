"""Mount options become attribute bits, propagation and data; what cannot be meant is refused with its pointer."""

from __future__ import annotations

import pytest

from runtime.errors import SpecFault
from runtime.kernel import mount as k
from runtime.plan.mounts import Change, plan_mount, plan_mounts, root_propagation
from runtime.spec.model import Linux, Mount, Root, Spec


def plan(*options: str, fstype: str = "", source: str = "/src", destination: str = "/d"):
    return plan_mount(Mount(destination=destination, type=fstype, source=source, options=options), "/bundle", "/mounts/0")


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ((), Change()),
        (("ro",), Change(set=k.MOUNT_ATTR_RDONLY)),
        (("ro", "rw"), Change(clear=k.MOUNT_ATTR_RDONLY)),
        (("rw", "ro"), Change(set=k.MOUNT_ATTR_RDONLY)),
        (("nosuid", "nodev"), Change(set=k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV)),
        (("noatime",), Change(set=k.MOUNT_ATTR_NOATIME, clear=k.MOUNT_ATTR_ATIME)),
        (("noatime", "relatime"), Change(clear=k.MOUNT_ATTR_ATIME)),
        (("noatime", "strictatime"), Change(set=k.MOUNT_ATTR_STRICTATIME, clear=k.MOUNT_ATTR_ATIME)),
    ],
)
def test_flags_of_a_bind(options, change):
    assert plan("bind", *options).change == change


def test_recursive_flags_are_apart():
    found = plan("rbind", "rro", "nosuid")
    assert found.deep_change == Change(set=k.MOUNT_ATTR_RDONLY)
    assert found.change == Change(set=k.MOUNT_ATTR_NOSUID)
    assert found.recursive


@pytest.mark.parametrize(
    ("word", "propagation", "deep"),
    [("rslave", k.MS_SLAVE, True), ("shared", k.MS_SHARED, False), ("", k.MS_PRIVATE, True), ("private", k.MS_PRIVATE, False)],
)
def test_a_bind_is_private_unless_told_otherwise(word, propagation, deep):
    found = plan("bind", *filter(None, [word]))
    assert (found.propagation, found.deep_propagation) == (propagation, deep)


def test_what_is_no_flag_is_the_file_system_s():
    found = plan("size=1m", "nosuid", "mode=755", fstype="tmpfs", source="tmpfs")
    assert found.kind == "new"
    assert found.data == ("size=1m", "mode=755")
    assert found.propagation == 0


def test_ro_reaches_the_superblock_of_real_file_systems_only():
    assert "ro" in plan("ro", fstype="ext4").data
    assert "ro" not in plan("ro", fstype="tmpfs").data


def test_relative_sources_are_relative_to_the_bundle():
    assert plan("bind", source="data").source == "/bundle/data"
    assert plan("bind", source="/data").source == "/data"
    assert plan(fstype="tmpfs", source="name").source == "name"


@pytest.mark.parametrize("destination", ["../../etc", "/a/../../etc", "etc"])
def test_a_destination_cannot_climb(destination):
    assert plan("bind", destination=destination).destination == "/etc"


def test_dev_turns_read_only_late():
    assert plan("ro", fstype="tmpfs", destination="/dev").late_read_only()
    assert not plan("ro", fstype="tmpfs", destination="/tmp").late_read_only()
    assert not plan("bind", "ro", destination="/dev").late_read_only()


@pytest.mark.parametrize(
    ("options", "fields", "pointer"),
    [
        (("bind",), {"source": ""}, "/mounts/0/source"),
        ((), {"fstype": ""}, "/mounts/0/type"),
        (("tmpcopyup",), {"fstype": "ext4"}, "/mounts/0/options"),
        (("bind", "nosiud"), {}, "/mounts/0/options"),
        (("bind", "size=1m"), {}, "/mounts/0/options"),
        (("bind", "copy-symlink", "src-nofollow"), {}, "/mounts/0/options"),
        (("bind", "copy-symlink", "dest-nofollow"), {}, "/mounts/0/options"),
    ],
)
def test_faults_name_the_pointer(options, fields, pointer):
    with pytest.raises(SpecFault) as caught:
        plan(*options, **fields)
    assert caught.value.pointer == pointer


@pytest.mark.parametrize(
    ("destination", "allowed"),
    [("/proc/meminfo", True), ("/proc/sys", False), ("/proc/1/attr", False), ("/", False), ("/bundle/r", False)],
)
def test_mounts_over_proc_and_root(destination, allowed):
    spec = Spec(
        oci_version="1.0.0", root=Root(path="r"), mounts=(Mount(destination=destination, source="/x", options=("bind",)),)
    )
    if allowed:
        assert plan_mounts(spec, "/bundle")
    else:
        with pytest.raises(SpecFault):
            plan_mounts(spec, "/bundle")


def test_root_propagation():
    assert root_propagation("") == (k.MS_SLAVE, True)
    assert root_propagation("shared") == (k.MS_SHARED, False)
    with pytest.raises(SpecFault):
        root_propagation("sideways")


@pytest.mark.parametrize(
    ("mount", "data"),
    [
        (Mount(destination="/d", type="tmpfs", options=("size=1k",)), ("size=1k", "context=a:b:c:s0:c1,c2")),
        (Mount(destination="/d", type="tmpfs", options=("context=mine",)), ("context=mine",)),
        (Mount(destination="/d", type="proc"), ()),
        (Mount(destination="/d", type="mqueue"), ()),
        (Mount(destination="/d", source="/s", options=("bind",)), ()),
    ],
)
def test_the_mount_label_is_for_new_file_systems(mount, data):
    spec = Spec(oci_version="1.0.2", root=Root(path="rootfs"), mounts=(mount,), linux=Linux(mount_label="a:b:c:s0:c1,c2"))
    assert plan_mounts(spec, "/bundle")[0].data == data
