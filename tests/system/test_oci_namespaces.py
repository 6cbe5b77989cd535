"""Namespaces: new, shared and joined by path; the user namespace; kernel parameters; clocks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import snapshot
from tests.support.wait import wait_for
from tests.system.test_oci_root import bind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system

PROC_NAMES = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "mount": "mnt", "cgroup": "cgroup"}
MAPS = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def links(script_output: str) -> dict[str, str]:
    """Give kind -> namespace of lines like "net net:[402]"."""
    return dict(line.split(" ", 1) for line in script_output.splitlines() if " " in line)


SHOW = "for kind in pid net ipc uts mnt cgroup user; do echo $kind $(readlink /proc/self/ns/$kind); done"


def test_new_namespaces_are_new_and_others_are_shared(oci: Oci) -> None:
    oci.config["linux"]["namespaces"] = [{"type": kind} for kind in ("pid", "mount", "uts", "cgroup")]
    found = links(oci.shell(SHOW))
    for kind in ("pid", "mnt", "uts", "cgroup"):
        assert found[kind] != os.readlink(f"/proc/self/ns/{kind}"), kind
    for kind in ("net", "ipc", "user"):
        assert found[kind] == os.readlink(f"/proc/self/ns/{kind}"), kind


@pytest.fixture
def holder() -> Iterator[int]:
    """Give the id of a process with namespaces of its own."""
    process = subprocess.Popen(
        [
            "unshare",
            "--net",
            "--ipc",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            "hostname held; echo up; exec cat",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as children:
        yield int(children.read().split()[0])
    process.communicate()


def test_namespaces_are_joined_by_path(oci: Oci, holder: int) -> None:
    joined = ("network", "ipc", "uts", "pid")
    oci.config["linux"]["namespaces"] = [
        {"type": "mount"},
        *({"type": kind, "path": f"/proc/{holder}/ns/{PROC_NAMES[kind]}"} for kind in joined),
    ]
    del oci.config["hostname"]
    found = links(oci.shell(f"{SHOW}; echo name $(hostname)"))
    for kind in joined:
        assert found[PROC_NAMES[kind]] == os.readlink(f"/proc/{holder}/ns/{PROC_NAMES[kind]}"), kind
    assert found["name"] == "held"
    assert os.readlink("/proc/self/ns/pid") == os.readlink("/proc/self/ns/pid_for_children")


def test_a_path_that_is_no_namespace_is_named(oci: Oci) -> None:
    oci.config["linux"]["namespaces"] = [{"type": "mount"}, {"type": "network", "path": "/proc/self/ns/uts"}]
    del oci.config["hostname"]
    assert oci.run("true").returncode != 0
    oci.config["linux"]["namespaces"][1]["path"] = "/no/such/path"
    done = oci.run("true")
    assert done.returncode != 0
    assert oci.runtime == "crun" or "/no/such/path" in done.stderr


def test_the_loopback_of_a_new_network_is_up(oci: Oci) -> None:
    assert "127.0.0.1" in oci.shell("ip addr show lo 2>/dev/null || ifconfig lo")


def test_kernel_parameters(oci: Oci) -> None:
    oci.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shmmni": "1234", "net.ipv4.conf.lo.rp_filter": "2"}
    script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni /proc/sys/net/ipv4/conf/lo/rp_filter"
    assert oci.shell(script).split() == ["1", "1234", "2"]
    with open("/proc/sys/kernel/shmmni", encoding="ascii") as file:
        assert file.read().strip() != "1234"


@pytest.mark.parametrize("name", ["kernel.panic", "vm.swappiness", "kernel.shmmni", "net.ipv4.ip_forward"])
def test_parameters_of_the_host_are_refused(oci: Oci, name: str) -> None:
    oci.config["linux"]["namespaces"] = [{"type": "mount"}, {"type": "pid"}, {"type": "uts"}]
    with open(f"/proc/sys/{name.replace('.', '/')}", encoding="ascii") as file:
        value = file.read().strip()
    oci.config["linux"]["sysctl"] = {name: value}
    done = oci.run("true")
    assert done.returncode != 0
    assert name in done.stderr


def test_parameters_of_the_host_s_network_by_its_path_are_refused(oci: Oci) -> None:
    if oci.runtime == "crun":
        pytest.skip("crun writes them")
    for one in oci.config["linux"]["namespaces"]:
        if one["type"] == "network":
            one["path"] = "/proc/self/ns/net"
    oci.config["mounts"] = [one for one in oci.config["mounts"] if one["type"] != "sysfs"]
    oci.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()}
    done = oci.run("true")
    assert done.returncode != 0
    assert "net.ipv4.ip_forward" in done.stderr


def in_user_namespace(node: Oci) -> None:
    """Give the container its own user namespace, and its root access to the bundle."""
    node.config["linux"]["namespaces"].append({"type": "user"})
    node.config["linux"] |= {"uidMappings": MAPS, "gidMappings": MAPS}
    for path in (node.bundle, node.rootfs):
        path.chmod(0o755)
    subprocess.run(["chown", "-R", "100000:100000", str(node.rootfs)], check=True)
    node.config["root"]["readonly"] = False


def test_a_hybrid_host_s_cgroups_look_like_v1(oci: Oci) -> None:
    """Programs take any cgroup2 mount for the sign of a v2 host, where limits are not what they look for."""
    oci.config["mounts"].append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]})
    oci.config["linux"]["namespaces"].append({"type": "cgroup"})
    kinds = set(oci.shell("grep ' /sys/fs/cgroup' /proc/self/mounts | cut -d ' ' -f 3").split())
    assert kinds == ({"cgroup2"} if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else {"tmpfs", "cgroup"})


def test_a_user_namespace(oci: Oci) -> None:
    in_user_namespace(oci)
    (oci.bundle / "data").mkdir()
    oci.config["mounts"].append(bind(oci.bundle / "data", "/data"))
    oci.config["process"]["user"] = {"uid": 5, "gid": 6}
    found = oci.shell(
        "id -u; id -g; cat /proc/self/uid_map; stat -c '%u %t:%T' /dev/null; echo x > /dev/null; mount | grep -c /data;"
        "readlink /proc/self/ns/user; hostname"
    ).splitlines()
    assert found[:2] == ["5", "6"]
    assert found[2].split() == ["0", "100000", "65536"]
    assert found[3].endswith(" 1:3")
    assert found[4] == "1"
    assert found[5] != os.readlink("/proc/self/ns/user")
    assert found[6] == "boat"


def test_root_of_a_user_namespace_owns_what_it_makes(oci: Oci) -> None:
    in_user_namespace(oci)
    assert oci.shell("touch /made; stat -c %u:%g /made /dev /dev/pts").split() == ["0:0"] * 3
    status = os.stat(oci.rootfs / "made")
    assert (status.st_uid, status.st_gid) == (100000, 100000)


def test_the_bundle_of_a_user_namespace_may_be_closed_to_it(ours: Oci) -> None:
    """What the container needs of the host is opened as the caller, so no folder above must be open to the mapped root."""
    in_user_namespace(ours)
    ours.bundle.chmod(0o700)
    (ours.bundle / "data").mkdir(mode=0o755)
    (ours.bundle / "data/file").write_text("reached")
    ours.config["mounts"].append(bind(ours.bundle / "data", "/data", "ro"))
    assert ours.output("cat", "/data/file") == "reached"


def test_exec_in_a_user_namespace(oci: Oci) -> None:
    in_user_namespace(oci)
    name = oci.start("sleep", "100")
    found = oci.ok("exec", "--user", "7:8", name, "sh", "-c", "id -u; readlink /proc/self/ns/user")
    lines = found.splitlines()
    assert lines[0] == "7"
    assert lines[1] != os.readlink("/proc/self/ns/user")


def test_a_joined_user_namespace(ours: Oci) -> None:
    in_user_namespace(ours)
    first = ours.start("sleep", "100")
    pid = ours.state(first)["pid"]
    ours.config["linux"]["namespaces"] = [
        {"type": "mount"},
        {"type": "pid"},
        *({"type": kind, "path": f"/proc/{pid}/ns/{PROC_NAMES.get(kind, kind)}"} for kind in ("network", "ipc", "uts", "user")),
    ]
    del ours.config["hostname"], ours.config["linux"]["uidMappings"], ours.config["linux"]["gidMappings"]
    found = links(ours.shell(f"{SHOW}; echo uid $(id -u)"))
    assert found["user"] == os.readlink(f"/proc/{pid}/ns/user")
    assert found["net"] == os.readlink(f"/proc/{pid}/ns/net")
    assert found["uid"] == "0"


def test_a_time_namespace(ours: Oci) -> None:
    ours.config["linux"]["namespaces"].append({"type": "time"})
    ours.config["linux"]["timeOffsets"] = {"boottime": {"secs": 1000000}}
    found = ours.shell("cut -d. -f1 /proc/uptime; readlink /proc/self/ns/time").split()
    assert int(found[0]) > 1000000
    assert found[1] != os.readlink("/proc/self/ns/time")
    assert os.readlink("/proc/self/ns/time") == os.readlink("/proc/self/ns/time_for_children")


def test_without_a_mount_namespace_the_mounts_are_gone_with_the_container(ours: Oci) -> None:
    """runc leaves them on the host; runtime-spec has delete undo what create did."""
    linux = ours.config["linux"]
    linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] != "mount"]
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        before = file.read()
    (ours.rootfs / "mark").touch()
    name = ours.start("sleep", "100")
    pid = ours.state(name)["pid"]
    assert os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt")
    assert ours.ok("exec", name, "ls", "/mark", "/dev/null").split() == ["/dev/null", "/mark"]
    ours.ok("delete", "--force", name)
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        assert file.read() == before
    ours.config["mounts"].append({"destination": "/x", "type": "nosuchfs", "source": "none"})
    assert ours.run("true").returncode == 1
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        assert file.read() == before


def test_the_runtime_s_own_mount_namespace_is_not_joined(ours: Oci) -> None:
    """By its path it would be the host's, and the container's root would take the place of the host's."""
    before = snapshot.mounts()
    namespaces = [one for one in ours.config["linux"]["namespaces"] if one["type"] != "mount"]
    ours.config["linux"]["namespaces"] = [*namespaces, {"type": "mount", "path": f"/proc/{os.getpid()}/ns/mnt"}]
    done = ours.run("true")
    assert (done.returncode, "it is the runtime's own" in done.stderr) == (1, True)
    assert snapshot.mounts() == before


@pytest.mark.parametrize("own", [True, False])
def test_mappings_beside_the_path_of_a_user_namespace(ours: Oci, own: bool) -> None:
    """They may say again what is so; runc, too, refuses anything else since 1.2."""
    in_user_namespace(ours)
    name = ours.start("sleep", "100")
    pid = ours.state(name)["pid"]
    others = [one for one in ours.config["linux"]["namespaces"] if one["type"] != "user"]
    ours.config["linux"]["namespaces"] = [*others, {"type": "user", "path": f"/proc/{pid}/ns/user"}]
    if own:
        assert ours.output("id", "-u") == "0\n"
        return
    ours.config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 7, "size": 1}]
    done = ours.run("true")
    assert done.returncode == 1
    assert "is not how the namespace that is named by its path is mapped" in done.stderr


def test_mappings_beside_the_path_of_a_user_namespace_in_another_are_the_host_s(ours: Oci) -> None:
    """Inside, uid_map names ids of the namespace around it (user_namespaces(7)); config.json names ids of the runtime's."""
    in_user_namespace(ours)
    pid = str(ours.state(ours.start("sleep", "100"))["pid"])
    inner = subprocess.Popen(["nsenter", "--user", "--target", pid, "unshare", "--user", "--map-root-user", "sleep", "100"])
    try:
        map_file = Path(f"/proc/{inner.pid}/uid_map")
        wait_for(lambda: map_file.read_text().split()[2:] == ["1"], "unshare to map its namespace")
        others = [one for one in ours.config["linux"]["namespaces"] if one["type"] != "user"]
        ours.config["linux"]["namespaces"] = [*others, {"type": "user", "path": f"/proc/{inner.pid}/ns/user"}]
        seen_from_here = [{"containerID": 0, "hostID": int(map_file.read_text().split()[1]), "size": 1}]
        ours.config["linux"] |= {"uidMappings": seen_from_here, "gidMappings": seen_from_here}
        assert ours.output("id", "-u") == "0\n"
    finally:
        inner.kill()
        inner.wait()
