from __future__ import annotations

from dataclasses import replace

import pytest

from shim.container.spec.build import build_spec
from shim.container.spec.host import CgroupLayout, HostSources, MountSource, SourcePropagation
from shim.container.spec.inputs import HandlerFeatures, PodFiles
from shim.container.spec.mountinfo import propagation_of
from shim.container.spec.mounts import volume_paths
from shim.errors import InvalidArgument

RRO = HandlerFeatures(recursive_read_only_mounts=True)


def by_destination(spec):
    return {mount["destination"]: mount for mount in spec["mounts"]}


def with_mounts(kit, *mounts, propagation=SourcePropagation.PRIVATE, **changes):
    given = kit.inputs({"mounts": list(mounts)}, **changes)
    sources = tuple(MountSource(path=m.host_path, propagation=propagation, mountpoint="/mnt") for m in given.config.mounts)
    return replace(given, sources=HostSources(mounts=sources))


def test_default_order(kit):
    assert [mount["destination"] for mount in build_spec(kit.inputs())["mounts"]] == [
        "/proc",
        "/dev",
        "/dev/pts",
        "/dev/mqueue",
        "/sys",
        "/sys/fs/cgroup",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/dev/shm",
    ]


def test_defaults(kit):
    found = by_destination(build_spec(kit.inputs()))
    assert found["/proc"] == {
        "destination": "/proc",
        "type": "proc",
        "source": "proc",
        "options": ["nosuid", "noexec", "nodev"],
    }
    assert "ro" in found["/sys"]["options"]
    assert found["/sys/fs/cgroup"]["options"][-1] == "ro"
    assert found["/dev/shm"] == {
        "destination": "/dev/shm",
        "type": "bind",
        "source": "/p/shm",
        "options": ["rbind", "rprivate", "rw"],
    }
    assert found["/etc/hosts"]["options"] == ["rbind", "rprivate", "rw"]


def test_pod_files_follow_a_readonly_root(kit):
    found = by_destination(build_spec(kit.inputs(kit.security(readonlyRootfs=True))))
    for name in ("hostname", "hosts", "resolv.conf"):
        assert found[f"/etc/{name}"]["options"] == ["rbind", "rprivate", "ro"]
    assert found["/dev/shm"]["options"] == ["rbind", "rprivate", "rw"]


def test_own_shm_without_the_pods(kit):
    assert by_destination(build_spec(kit.inputs(pod_files=PodFiles())))["/dev/shm"]["type"] == "tmpfs"


def test_cri_mounts_win_and_are_sorted_by_depth(kit):
    spec = build_spec(
        with_mounts(
            kit,
            {"containerPath": "/a/b/c", "hostPath": "/h1", "readonly": True},
            {"containerPath": "/etc//hosts/", "hostPath": "/h2"},
            {"containerPath": "/a", "hostPath": "/h3"},
            {"containerPath": "/proc", "hostPath": "/h4"},
            {"containerPath": "/x/../b", "hostPath": "/h5"},
            image_volumes={"/b": "/volumes/1", "/data": "/volumes/2"},
        )
    )
    destinations = [mount["destination"] for mount in spec["mounts"]]
    assert destinations.count("/etc/hosts") == destinations.count("/proc") == destinations.count("/b") == 1
    found = by_destination(spec)
    assert found["/etc/hosts"]["source"] == "/h2"
    assert found["/proc"]["source"] == "/h4"
    assert found["/b"]["source"] == "/h5"
    assert found["/data"]["source"] == "/volumes/2"
    assert found["/a/b/c"]["options"] == ["rbind", "rprivate", "ro"]
    binds = [mount["destination"] for mount in spec["mounts"] if mount["type"] == "bind"]
    assert binds == ["/a", "/proc", "/b", "/data", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/shm", "/a/b/c"]


def test_a_mount_on_dev_replaces_everything_below(kit):
    spec = build_spec(with_mounts(kit, {"containerPath": "/dev", "hostPath": "/dev"}, pod_files=PodFiles()))
    destinations = [mount["destination"] for mount in spec["mounts"]]
    assert [path for path in destinations if path.startswith("/dev")] == ["/dev"]


@pytest.mark.parametrize(
    ("asked", "host", "option", "rootfs"),
    [
        ("PROPAGATION_PRIVATE", SourcePropagation.PRIVATE, "rprivate", None),
        ("PROPAGATION_HOST_TO_CONTAINER", SourcePropagation.SHARED, "rslave", "rslave"),
        ("PROPAGATION_HOST_TO_CONTAINER", SourcePropagation.SLAVE, "rslave", "rslave"),
        ("PROPAGATION_BIDIRECTIONAL", SourcePropagation.SHARED, "rshared", "rshared"),
    ],
)
def test_propagation(kit, asked, host, option, rootfs):
    spec = build_spec(with_mounts(kit, {"containerPath": "/m", "hostPath": "/mnt", "propagation": asked}, propagation=host))
    assert by_destination(spec)["/m"]["options"][1] == option
    assert spec["linux"].get("rootfsPropagation") == rootfs


@pytest.mark.parametrize(
    ("asked", "host"),
    [
        ("PROPAGATION_HOST_TO_CONTAINER", SourcePropagation.PRIVATE),
        ("PROPAGATION_BIDIRECTIONAL", SourcePropagation.PRIVATE),
        ("PROPAGATION_BIDIRECTIONAL", SourcePropagation.SLAVE),
    ],
)
def test_propagation_the_source_cannot_do(kit, asked, host):
    given = with_mounts(kit, {"containerPath": "/m", "hostPath": "/mnt/x", "propagation": asked}, propagation=host)
    with pytest.raises(InvalidArgument, match=r"mounts\[0\].propagation: path '/mnt/x' is mounted on '/mnt'"):
        build_spec(given)


def test_recursive_read_only(kit):
    mount = {"containerPath": "/m", "hostPath": "/h", "readonly": True, "recursiveReadOnly": True}
    assert by_destination(build_spec(with_mounts(kit, mount, features=RRO)))["/m"]["options"] == ["rbind", "rprivate", "rro"]
    with pytest.raises(InvalidArgument, match=r"^RROUnsupported"):
        build_spec(with_mounts(kit, mount))
    with pytest.raises(InvalidArgument, match="conflicts"):
        build_spec(with_mounts(kit, mount | {"readonly": False}, features=RRO))
    shared = mount | {"propagation": "PROPAGATION_HOST_TO_CONTAINER"}
    with pytest.raises(InvalidArgument, match="PROPAGATION_PRIVATE"):
        build_spec(with_mounts(kit, shared, propagation=SourcePropagation.SHARED, features=RRO))


@pytest.mark.parametrize("path", ["", "relative", "/", "/..", "//", "/a/..", "/x\0y"])
def test_bad_container_paths(kit, path):
    with pytest.raises(InvalidArgument, match=r"mounts\[0\].container_path"):
        build_spec(with_mounts(kit, {"containerPath": path, "hostPath": "/h"}))


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/a/../../etc/passwd"])
def test_container_paths_stay_inside(kit, path):
    spec = build_spec(with_mounts(kit, {"containerPath": path, "hostPath": "/h"}))
    assert by_destination(spec)["/etc/passwd"]["source"] == "/h"


def test_cgroup_options_of_the_node_are_repeated_where_its_namespace_is_shared(kit):
    host = replace(kit.HOST, cgroup_options=("nsdelegate",))
    assert "nsdelegate" not in by_destination(build_spec(kit.inputs(host=host)))["/sys/fs/cgroup"]["options"]
    privileged = kit.inputs(kit.security(privileged=True), kit.security(privileged=True), host=host)
    assert by_destination(build_spec(privileged))["/sys/fs/cgroup"]["options"][-2:] == ["rw", "nsdelegate"]


def test_user_namespace(kit):
    maps = [{"hostId": 100000, "containerId": 0, "length": 65536}]
    modes = {"usernsOptions": {"mode": "POD", "uids": maps, "gids": maps}, "network": "NODE"}
    asked = kit.security(namespaceOptions=modes)
    with pytest.raises(InvalidArgument, match="user namespace"):
        build_spec(kit.inputs(asked, asked))
    spec = build_spec(kit.inputs(asked, asked, features=HandlerFeatures(user_namespaces=True)))
    oci = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    assert spec["linux"]["uidMappings"] == spec["linux"]["gidMappings"] == oci
    assert {"type": "user", "path": kit.PINS["user"]} in spec["linux"]["namespaces"]
    found = by_destination(spec)
    assert found["/sys"]["type"] == "bind"
    assert found["/etc/hosts"]["uidMappings"] == oci
    assert "uidMappings" not in found["/dev/shm"]


def test_image_volumes(kit):
    config = kit.container(mounts=[{"containerPath": "/data/", "hostPath": "/h"}])
    assert volume_paths(["/data", "b", "/../../etc/x", "/", "b/"], config) == ["/b", "/etc/x"]


MOUNTINFO = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:20 / /mnt rw shared:2 master:1 - tmpfs tmpfs rw
24 23 0:21 / /mnt/deep rw master:5 - tmpfs tmpfs rw
25 22 0:22 / /mnt2 rw - tmpfs tmpfs rw
26 22 0:23 / /with\040space rw shared:9 - tmpfs tmpfs rw
27 22 0:24 / /over rw shared:9 - tmpfs tmpfs rw
28 27 0:25 / /over rw - tmpfs tmpfs rw
garbage
"""


@pytest.mark.parametrize(
    ("path", "point", "kind"),
    [
        ("/", "/", "shared"),
        ("/etc", "/", "shared"),
        ("/mnt", "/mnt", "shared"),
        ("/mnt/x", "/mnt", "shared"),
        ("/mnt/deep", "/mnt/deep", "slave"),
        ("/mnt/deep/er", "/mnt/deep", "slave"),
        ("/mnt/deeper", "/mnt", "shared"),
        ("/mnt2/x", "/mnt2", "private"),
        ("/with space/x", "/with space", "shared"),
        ("/over/x", "/over", "private"),
    ],
)
def test_mountinfo(path, point, kind):
    assert propagation_of(MOUNTINFO, path) == (point, kind)


def test_empty_mountinfo():
    assert propagation_of("", "/x") == ("/", SourcePropagation.PRIVATE)


def test_v1_has_no_cgroup_namespace(kit):
    for layout, expected in ((CgroupLayout.V2, True), (CgroupLayout.V1, False), (CgroupLayout.HYBRID, False)):
        namespaces = build_spec(kit.inputs(host=replace(kit.HOST, cgroup_layout=layout)))["linux"]["namespaces"]
        assert ({"type": "cgroup"} in namespaces) is expected
