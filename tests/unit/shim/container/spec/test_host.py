"""The modules that look at the node: detect, look and sources."""

from __future__ import annotations

import json
import os

import pytest

from shim.container.spec import look
from shim.container.spec.build import build_spec
from shim.container.spec.detect import detect_host
from shim.container.spec.host import CgroupLayout, SourcePropagation
from shim.container.spec.sources import gather_sources, sources_of, wanted
from shim.errors import FailedPrecondition, InvalidArgument

STATUS = "Name:\tx\nCapEff:\t{eff}\nCapBnd:\t{bnd}\nSeccomp:\t0\n"
V2 = "30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"


@pytest.fixture
def node(tmp_path):
    def make(**files):
        base = {
            "proc/self/status": STATUS.format(eff="000001ffffffffff", bnd="000001ffffffffff"),
            "proc/self/oom_score_adj": "-500\n",
            "proc/sys/kernel/osrelease": "6.1.0-13-amd64\n",
            "proc/sys/kernel/hostname": "node-1\n",
            "proc/sys/kernel/seccomp/actions_avail": "kill\n",
        }
        for name, text in (base | files).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return detect_host(root=str(tmp_path))

    return make


def test_a_plain_v2_node(node):
    host = node(
        **{
            "sys/fs/cgroup/cgroup.controllers": "cpu memory hugetlb\n",
            "proc/self/mountinfo": V2,
            "proc/self/cgroup": "0::/system.slice/wherry.service\n",
            "sys/fs/cgroup/system.slice/wherry.service/memory.swap.max": "max\n",
            "sys/module/apparmor/parameters/enabled": "Y\n",
            "sys/fs/selinux/enforce": "1",
        }
    )
    assert host.cgroup_layout is CgroupLayout.V2
    assert host.cgroup_options == ("nsdelegate", "memory_recursiveprot")
    assert (host.kernel, host.hostname) == ((6, 1), "node-1")
    assert host.swap_controller
    assert host.hugetlb_controller
    assert host.seccomp
    assert host.apparmor
    assert host.selinux
    assert host.oom_score_adj_floor == -1000
    assert len(host.capabilities) == 41


def test_a_restricted_v1_node(node):
    host = node(
        **{
            "proc/self/status": STATUS.format(eff="0000000000000001", bnd="0000000000000401"),
            "sys/fs/cgroup/memory/memory.memsw.limit_in_bytes": "1",
        }
    )
    assert host.cgroup_layout is CgroupLayout.V1
    assert host.capabilities == ("CAP_CHOWN", "CAP_NET_BIND_SERVICE")
    assert host.oom_score_adj_floor == -500
    assert host.swap_controller
    assert not any((host.hugetlb_controller, host.apparmor, host.selinux))


def test_a_hybrid_node(node):
    host = node(**{"sys/fs/cgroup/unified/cgroup.controllers": ""})
    assert host.cgroup_layout is CgroupLayout.HYBRID
    assert not host.swap_controller
    assert node(**{"sys/fs/cgroup/unified/cgroup.controllers": "hugetlb\n"}).hugetlb_controller
    host = node(**{"sys/fs/cgroup/hugetlb/nothing-is-mounted": "", "sys/fs/cgroup/unified/cgroup.controllers": ""})
    assert not host.hugetlb_controller
    host = node(**{"sys/fs/cgroup/hugetlb/cgroup.procs": ""})
    assert host.hugetlb_controller


def test_a_node_that_shows_nothing(tmp_path):
    host = detect_host(root=str(tmp_path))
    assert host.capabilities == ()
    assert not host.seccomp


def test_this_node():
    host = detect_host()
    assert host.capabilities
    assert host.hostname
    assert host.kernel >= (5, 0)


def test_mount_sources(kit, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("real")
    paths = [tmp_path / "link", tmp_path / "file", tmp_path / "link" / "new" / "dir"]
    mounts = [{"containerPath": "/m", "hostPath": str(path)} for path in paths]
    found = gather_sources(kit.container(mounts=mounts))
    real = os.path.realpath(tmp_path)
    assert [source.path for source in found.mounts] == [f"{real}/real", f"{real}/file", f"{real}/real/new/dir"]
    assert [source.is_dir for source in found.mounts] == [True, False, True]
    assert found.ensure_dirs == (f"{real}/real/new/dir",)
    assert not (tmp_path / "real" / "new").exists()


@pytest.mark.parametrize("path", ["", "relative", "/x\0y"])
def test_bad_mount_sources(kit, path):
    with pytest.raises(InvalidArgument, match=r"mounts\[0\].host_path"):
        gather_sources(kit.container(mounts=[{"containerPath": "/m", "hostPath": path}]))


def test_mount_sources_the_host_refuses(kit, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file/below", "dangling", "loop"):
        with pytest.raises(FailedPrecondition, match=r"mounts\[0\].host_path"):
            gather_sources(kit.container(mounts=[{"containerPath": "/m", "hostPath": str(tmp_path / name)}]))


def test_propagation_is_read_from_mountinfo(kit, tmp_path, monkeypatch):
    table = tmp_path / "mountinfo"
    table.write_text("22 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n")
    monkeypatch.setattr(look, "MOUNTINFO", str(table))
    mounts = [{"containerPath": "/m", "hostPath": "/", "propagation": "PROPAGATION_BIDIRECTIONAL"}]
    assert gather_sources(kit.container(mounts=mounts)).mounts[0].propagation is SourcePropagation.SHARED


def test_device_sources(kit):
    devices = [{"hostPath": "/dev/null", "containerPath": "/dev/n", "permissions": "r"}]
    config = kit.container(devices=devices)
    found = gather_sources(config)
    assert (found.devices[0][0].kind, found.devices[0][0].major, found.devices[0][0].minor) == ("c", 1, 3)
    spec = build_spec(kit.inputs({"devices": devices}, sources=found))
    assert spec["linux"]["devices"][0]["path"] == "/dev/n"


@pytest.mark.parametrize("path", ["/dev/no-such-device", "/etc/passwd", "/proc/self/attr"])
def test_what_is_no_device(kit, path):
    with pytest.raises(InvalidArgument, match=r"devices\[0\].host_path"):
        gather_sources(kit.container(devices=[{"hostPath": path, "permissions": "r"}]))


def test_privileged_sees_the_hosts_devices(kit):
    found = gather_sources(kit.container(**kit.security(privileged=True)))
    paths = {node.path for node in found.host_devices}
    assert "/dev/null" in paths
    assert not any(path.startswith(("/dev/pts/", "/dev/shm/")) or path == "/dev/console" for path in paths)
    assert gather_sources(kit.container()).host_devices == ()


def localhost(kit, path):
    return kit.container(**kit.security(seccomp={"profileType": "Localhost", "localhostRef": path}))


def test_seccomp_profile_is_read(kit, tmp_path):
    path = tmp_path / "profile.json"
    path.write_bytes(b"{}")
    assert gather_sources(localhost(kit, str(path))).seccomp_profile == b"{}"
    os.mkfifo(tmp_path / "fifo")
    for bad in ("relative.json", str(tmp_path), str(tmp_path / "fifo"), str(tmp_path / "gone"), "/x\0"):
        with pytest.raises(InvalidArgument, match="localhost_ref"):
            gather_sources(localhost(kit, bad))


LOCAL_TABLE = "22 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n23 22 0:5 / /tmp rw - tmpfs tmpfs rw\n"


@pytest.mark.parametrize("kind", ["nfs4", "fuse.sshfs", "cifs", "9p", "autofs", "something-new"])
def test_what_may_hang_is_seen_without_touching_it(tmp_path, monkeypatch, kind):
    table = tmp_path / "mountinfo"
    monkeypatch.setattr(look, "MOUNTINFO", str(table))
    table.write_text(LOCAL_TABLE)
    assert not look.may_hang()
    table.write_text(f"{LOCAL_TABLE}24 22 0:9 / /srv rw shared:7 - {kind} host:/x rw\n")
    assert look.may_hang()


def test_what_was_found_crosses_a_process_boundary_unchanged(kit, tmp_path):
    (tmp_path / "profile.json").write_bytes(bytes(range(256)))
    security = kit.security(seccomp={"profileType": "Localhost", "localhostRef": f"{tmp_path}/profile.json"})
    mounts = [{"containerPath": "/m", "hostPath": str(tmp_path / "new"), "propagation": "PROPAGATION_HOST_TO_CONTAINER"}]
    devices = [{"hostPath": "/dev/null", "containerPath": "/dev/n", "permissions": "r"}]
    config = kit.container(mounts=mounts, devices=devices, **security)
    crossed = json.loads(json.dumps(look.run({"action": "look", **wanted(config)}, [], print)))
    assert sources_of(crossed) == gather_sources(config)
    assert sources_of(crossed).seccomp_profile == bytes(range(256))
    privileged = kit.container(**kit.security(privileged=True))
    crossed = json.loads(json.dumps(look.look(wanted(privileged))))
    assert sources_of(crossed) == gather_sources(privileged)


def test_directories_are_made_and_the_refused_one_is_named(tmp_path):
    (tmp_path / "file").touch()
    look.run({"action": "make", "directories": [str(tmp_path / "a" / "b"), str(tmp_path)]}, [], print)
    assert (tmp_path / "a" / "b").is_dir()
    with pytest.raises(FailedPrecondition, match="file/below"):
        look.make([str(tmp_path / "file" / "below")])


def test_folders_of_logs_are_made_through_no_link(tmp_path):
    pod, outside = tmp_path / "pod", tmp_path / "outside"
    outside.mkdir()
    look.make([], (str(pod), "main/deep"))
    assert (pod / "main/deep").is_dir()
    (pod / "side").symlink_to(outside)
    (pod / "file").touch()
    for folders, why in (("side", "a symbolic link is in its place"), ("side/deep", "a symbolic"), ("file/deep", "directory")):
        with pytest.raises(FailedPrecondition, match=f"{pod}/{folders} on the host cannot be created: .*{why}"):
            look.make([], (str(pod), folders))
    assert list(outside.iterdir()) == []
