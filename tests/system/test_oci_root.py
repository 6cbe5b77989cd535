"""The root file system: mounts with every flag, propagation, devices, links, masks, and paths that would leave it."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.oci_node import OURS, options_of, propagation_of

if TYPE_CHECKING:
    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system


def bind(source: os.PathLike[str] | str, destination: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", *options]}


def mounts(oci: Oci) -> str:
    return oci.output("cat", "/proc/self/mountinfo")


def test_the_root_is_the_bundle_s_and_read_only_when_asked(oci: Oci) -> None:
    (oci.rootfs / "mark").write_text("here")
    assert oci.shell("cat /mark; touch /new 2>&1 || true").startswith("here")
    assert not (oci.rootfs / "new").exists()
    oci.config["root"]["readonly"] = False
    oci.shell("echo written > /new")
    assert (oci.rootfs / "new").read_text() == "written\n"


def test_nothing_of_the_host_is_mounted(oci: Oci) -> None:
    found = {line.split(" ")[4] for line in mounts(oci).splitlines()}
    expected = {"/", "/proc", "/dev", "/dev/pts", "/sys"}
    assert found <= expected | {"/proc/kcore", "/dev/console"}, found - expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["ro"], {"ro"}),
        (["rw", "nosuid", "nodev", "noexec"], {"rw", "nosuid", "nodev", "noexec"}),
        (["noatime", "nodiratime"], {"noatime", "nodiratime"}),
        (["ro", "relatime"], {"ro", "relatime"}),
    ],
)
def test_flags_of_bind_mounts(oci: Oci, options: list[str], expected: set[str]) -> None:
    (oci.bundle / "data").mkdir()
    oci.config["mounts"].append(bind(oci.bundle / "data", "/data", *options))
    (oci.rootfs / "data").mkdir()
    assert expected <= options_of(mounts(oci), "/data")


def test_recursive_flags(oci: Oci) -> None:
    if oci.runtime == "runc":
        pytest.skip("runc 1.1.5 knows no recursive flags")
    (oci.rootfs / "a").mkdir()
    tmpfs = {"destination": "/a", "type": "tmpfs", "source": "tmpfs", "options": ["rw"]}
    inner = {"destination": "/a/b", "type": "tmpfs", "source": "tmpfs", "options": ["rw"]}
    oci.config["mounts"] += [tmpfs, inner]
    if oci.runtime == OURS:
        # the recursive flags need a tree to act on: /sys of the host has mounts below it
        oci.config["mounts"].append(bind("/dev", "/c", "rro", "rnoexec"))
        (oci.rootfs / "c").mkdir()
        found = mounts(oci)
        for place in ("/c", "/c/pts", "/c/shm"):
            assert {"ro", "noexec"} <= options_of(found, place)


@pytest.mark.parametrize("kind", ["private", "rprivate", "shared", "slave", "rslave", "unbindable"])
def test_propagation_of_bind_mounts(oci: Oci, kind: str) -> None:
    if oci.runtime == "crun":
        pytest.skip("crun makes the whole root private afterwards")
    (oci.bundle / "data").mkdir()
    (oci.rootfs / "data").mkdir()
    oci.config["mounts"].append(bind(oci.bundle / "data", "/data", kind))
    found = propagation_of(mounts(oci), "/data")
    expected = kind.removeprefix("r")
    assert found in {"slave": ("slave", "private")}.get(expected, (expected,))  # what is no peer has no master


def test_file_systems_and_their_data(oci: Oci) -> None:
    oci.config["mounts"] += [
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=1777", "nosuid"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=2m", "noexec"]},
    ]
    (oci.rootfs / "tmp").mkdir(exist_ok=True)
    found = oci.shell("cat /proc/self/mountinfo; stat -c %a /tmp; df -k /tmp | tail -1")
    assert "noexec" in options_of(found, "/dev/shm")
    assert found.splitlines()[-2] == "1777"
    assert found.splitlines()[-1].split()[1] == "1024"


def test_a_wrong_option_names_the_kernel_s_complaint(ours: Oci) -> None:
    ours.config["mounts"].append({"destination": "/dev/shm", "type": "tmpfs", "source": "x", "options": ["nonsense=1"]})
    done = ours.run("true")
    assert done.returncode != 0
    assert "nonsense" in done.stderr


def test_a_missing_bind_source_is_named(oci: Oci) -> None:
    oci.config["mounts"].append(bind("/does/not/exist", "/x"))
    done = oci.run("true")
    assert done.returncode != 0
    assert "/does/not/exist" in done.stderr


def test_destinations_are_made(oci: Oci) -> None:
    (oci.bundle / "file").write_text("content")
    oci.config["root"]["readonly"] = False
    oci.config["mounts"] += [bind(oci.bundle / "file", "/new/deep/file", "ro"), bind(oci.bundle, "/other/dir")]
    assert oci.output("cat", "/new/deep/file") == "content"


def test_a_dangling_link_is_followed_inside_the_root(oci: Oci) -> None:
    if oci.runtime == "crun":
        pytest.skip("crun refuses what Debian images need: /etc/resolv.conf is such a link there")
    (oci.bundle / "resolv").write_text("nameserver")
    (oci.rootfs / "etc").mkdir(exist_ok=True)
    (oci.rootfs / "etc/resolv.conf").symlink_to("../run/net/resolv.conf")
    oci.config["mounts"].append(bind(oci.bundle / "resolv", "/etc/resolv.conf"))
    assert oci.output("cat", "/run/net/resolv.conf") == "nameserver"


def test_links_cannot_lead_a_mount_out_of_the_root(oci: Oci, tmp_path: Any) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (oci.bundle / "data").mkdir()
    (oci.bundle / "data/mark").write_text("inside")
    (oci.rootfs / "absolute").symlink_to(outside)
    (oci.rootfs / "climbing").symlink_to("../../../../../.." + str(outside))
    for name in ("absolute", "climbing"):
        oci.config["mounts"].append(bind(oci.bundle / "data", f"/{name}/target"))
    oci.run("true")
    assert list(outside.iterdir()) == []


@pytest.fixture
def link(ours: Oci) -> str:
    """Give a symbolic link of the host that leads to a file, and make one in the root that leads nowhere."""
    (ours.bundle / "file").write_text("content")
    os.symlink(ours.bundle / "file", ours.bundle / "link")
    os.symlink("nowhere", ours.rootfs / "target")
    return str(ours.bundle / "link")


def test_a_link_is_copied(ours: Oci, link: str) -> None:
    """As crun has copy-symlink: not what the link leads to, and nothing else may be there already."""
    ours.config["mounts"] += [bind(link, "/made/link", "copy-symlink"), bind(ours.bundle / "file", "/plain", "copy-symlink")]
    for _ in range(2):
        assert ours.shell("readlink /made/link; cat /plain; grep -c /made/link /proc/self/mountinfo || true") == (
            f"{ours.bundle}/file\ncontent0\n"
        )
    ours.config["mounts"].append(bind(link, "/target", "copy-symlink"))
    done = ours.run("true")
    assert done.returncode == 1
    assert "something else is there" in done.stderr


@pytest.mark.parametrize(("word", "said"), [("src-nofollow", "{file}"), ("ro", "content")])
def test_a_link_is_mounted_over(ours: Oci, link: str, word: str, said: str) -> None:
    """As crun has dest-nofollow: on the link itself; with src-nofollow it is a link that is mounted."""
    ours.config["mounts"].append(bind(link, "/target", "dest-nofollow", word))
    reading = "readlink" if word == "src-nofollow" else "cat"
    assert ours.output(reading, "/target").strip() == said.format(file=ours.bundle / "file")
    assert not (ours.rootfs / "nowhere").exists()


def test_a_link_in_the_place_of_a_file(ours: Oci, link: str) -> None:
    ours.config["mounts"].append(bind(link, "/other", "src-nofollow"))
    assert ours.output("readlink", "/other").strip() == str(ours.bundle / "file")


def test_proc_is_not_mounted_through_a_link(oci: Oci) -> None:
    if oci.runtime == "crun":
        pytest.skip("crun 1.8 follows it")
    (oci.rootfs / "elsewhere").mkdir()
    proc = oci.rootfs / "proc"
    if proc.is_dir():
        proc.rmdir()
    proc.symlink_to("elsewhere")
    done = oci.run("true")
    assert done.returncode != 0


def test_a_link_leads_no_mount_into_proc(oci: Oci) -> None:
    """What the document may not say by name (/proc/sys) an image may not say by a link either."""
    if oci.runtime == "crun":
        pytest.skip("crun follows it")
    (oci.bundle / "data").mkdir()
    (oci.rootfs / "data").symlink_to("/proc/sys")
    oci.config["mounts"].append(bind(oci.bundle / "data", "/data"))
    done = oci.run("true")
    assert done.returncode != 0
    assert "inside /proc" in done.stderr


def test_copy_up(ours: Oci) -> None:
    folder = ours.rootfs / "seed"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/file").write_text("kept")
    os.chown(folder / "sub/file", 12, 34)
    (folder / "sub/file").chmod(0o644)
    (folder / "link").symlink_to("sub/file")
    ours.config["mounts"].append({"destination": "/seed", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]})
    found = ours.shell("cat /seed/link; stat -c ' %a %u %g' /seed/sub/file; echo more > /seed/new")
    assert found == "kept 644 12 34\n"
    assert not (folder / "new").exists()


def test_devices_and_links(oci: Oci) -> None:
    oci.config["linux"]["devices"] = [
        {"path": "/dev/own", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8},
        {"path": "/dev/sub/pipe", "type": "p", "fileMode": 0o600},
    ]
    found = oci.shell(
        "stat -c '%n %F %a %t:%T %u:%g' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/own /dev/sub/pipe;"
        "for link in fd stdin stdout stderr ptmx; do readlink /dev/$link; done; echo gone > /dev/null;"
        "head -c 1 /dev/zero | wc -c"
    )
    lines = found.splitlines()
    assert lines[:6] == [
        f"/dev/{name} character special file 666 {numbers} 0:0"
        for name, numbers in (
            ("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("urandom", "1:9"), ("tty", "5:0"),
        )
    ]  # fmt: skip
    assert lines[6] == "/dev/own character special file 640 1:5 7:8"
    assert lines[7].startswith("/dev/sub/pipe fifo 600")
    assert lines[8:12] == ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"]
    assert lines[12].endswith("pts/ptmx")
    assert lines[13] == "1"


def test_masked_and_read_only_paths(oci: Oci) -> None:
    (oci.rootfs / "secret").mkdir()
    (oci.rootfs / "secret/key").write_text("key")
    (oci.rootfs / "hidden").write_text("hidden")
    (oci.rootfs / "fixed").mkdir()
    oci.config["root"]["readonly"] = False
    linux = oci.config["linux"]
    linux["maskedPaths"] = ["/secret", "/hidden", "/proc/version", "/proc/nothing", "/sys/firmware"]
    linux["readonlyPaths"] = ["/fixed", "/proc/sys", "/proc/nothing"]
    found = oci.shell(
        "ls /secret; cat /hidden; stat -c '%t:%T' /hidden /proc/version; touch /fixed/x 2>/dev/null && echo bad;"
        "echo 1 > /proc/sys/kernel/domainname 2>/dev/null && echo bad; touch /secret/x 2>/dev/null && echo bad; echo done"
    )
    assert found.splitlines() == ["1:3", "1:3", "done"]


def test_a_mask_of_proc_is_not_led_astray(ours: Oci) -> None:
    """CVE-2019-16884 and its kin: something that looks like /proc but is not must fail, not go unmasked."""
    (ours.rootfs / "proc/kcore").write_text("fake")
    ours.config["mounts"] = ours.config["mounts"][1:]
    ours.config["linux"]["maskedPaths"] = ["/proc/kcore"]
    done = ours.run("true")
    assert done.returncode == 1
    assert "this is not the kernel's procfs" in done.stderr


def test_a_null_device_of_the_image_hides_nothing(ours: Oci) -> None:
    """CVE-2025-31133: masks come from the host's null device, whatever the root calls /dev/null."""
    (ours.bundle / "dev").mkdir()
    (ours.bundle / "dev/null").write_text("leak")
    (ours.bundle / "dev/pts").mkdir()
    ours.config["mounts"] = [
        ours.config["mounts"][0],
        bind(ours.bundle / "dev", "/dev"),
    ]
    (ours.rootfs / "hidden").write_text("hidden")
    ours.config["linux"]["maskedPaths"] = ["/hidden"]
    assert ours.shell("stat -c '%F %t:%T' /hidden") == "character special file 1:3\n"


@pytest.mark.parametrize("namespaced", [True, False])
def test_the_container_sees_its_own_cgroup(oci: Oci, namespaced: bool) -> None:
    options = ["nosuid", "noexec", "nodev", "ro"]
    oci.config["mounts"].append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options})
    if namespaced:
        oci.config["linux"]["namespaces"].append({"type": "cgroup"})
    script = (
        "cat $(ls -d /sys/fs/cgroup/pids/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null | head -1);"
        "grep pids /proc/self/cgroup"
    )
    found = oci.shell(script).splitlines()
    assert "1" in found
    if namespaced:
        assert found[-1].endswith(":/")


def test_no_pivot(oci: Oci) -> None:
    oci.write("sh", "-c", f"ls /; test ! -e {oci.bundle}")
    assert "bin" in oci.ok("run", "--no-pivot", oci.new_id())


def test_hostname_and_domainname(oci: Oci) -> None:
    if oci.ours:
        oci.config["domainname"] = "sea"
        assert oci.shell("hostname; cat /proc/sys/kernel/domainname") == "boat\nsea\n"
    assert oci.output("hostname") == "boat\n"


def test_a_bind_of_a_socket_or_device_node(oci: Oci) -> None:
    (oci.rootfs / "node").touch()
    oci.config["mounts"].append(bind("/dev/zero", "/node"))
    assert stat.S_ISCHR(int(oci.shell("stat -c %f /node"), 16))


def test_a_tmpfs_takes_the_mode_of_what_it_covers(ours: Oci) -> None:
    (ours.rootfs / "data").mkdir(mode=0o700)
    os.chmod(ours.rootfs / "data", 0o710)
    ours.config["mounts"].append({"destination": "/data", "type": "tmpfs", "source": "tmpfs"})
    ours.config["mounts"].append({"destination": "/tmp/new", "type": "tmpfs", "source": "tmpfs"})
    ours.config["root"]["readonly"] = False
    assert ours.output("stat", "-c", "%a", "/data", "/tmp/new").split() == ["710", "1777"]
    ours.config["mounts"][-2]["options"] = ["mode=1500"]
    assert ours.output("stat", "-c", "%a", "/data").split() == ["1500"]


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("user", [False, True])
def test_a_source_may_lie_among_the_mounts_before_it(ours: Oci, mapped: bool, user: bool) -> None:
    """The destination, too, may be spelled as the host sees it, which runc's callers rely on."""
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    if user:
        ours.config["linux"]["namespaces"].append({"type": "user"})
        ours.config["linux"].update(uidMappings=mapping, gidMappings=mapping)
    for name in ("a/x", "b/y"):
        (ours.bundle / name).mkdir(parents=True)
        (ours.bundle / name / "file").write_text(name)
    for name in ("mnt", "final"):
        (ours.rootfs / name).mkdir()
    root = str(ours.rootfs)
    ours.config["mounts"] += [
        bind(ours.bundle / "a", "/mnt"),
        bind(ours.bundle / "b", "/mnt/x"),
        bind(f"{root}/mnt", f"{root}/final") | ({"uidMappings": mapping, "gidMappings": mapping} if mapped else {}),
    ]
    assert ours.shell("cat /final/x/y/file") == "b/y"
    owner = ours.shell("stat -c %u /final").strip()
    assert owner == {(False, False): "0", (False, True): "100000", (True, False): "65534", (True, True): "0"}[user, mapped]


def test_devices_of_a_user_namespace_are_those_asked_for(ours: Oci) -> None:
    """Also when the host has none, or another, at that path, which runc binds; with the owner and the mode of the document."""
    oci = ours
    everybody = [{"containerID": 0, "hostID": 0, "size": 4294967295}]
    oci.config["linux"] |= {"uidMappings": everybody, "gidMappings": everybody}
    oci.config["linux"]["namespaces"].append({"type": "user"})
    device = {"path": "/dev/null2", "type": "c", "major": 1, "minor": 3, "uid": 10, "gid": 11, "fileMode": 0o157}
    oci.config["linux"]["devices"] = [device]
    lines = oci.shell("stat -c '%u:%g %a %t:%T' /dev/null2; grep /dev/null2 /proc/self/mountinfo").splitlines()
    assert lines[0] == "10:11 157 1:3"
    assert {"nosuid", "noexec"} <= set(lines[1].split()[5].split(","))


def test_a_dev_that_leads_elsewhere_is_refused(ours: Oci) -> None:
    """CVE-2026-41579: nothing is made where a /dev of the image leads."""
    oci = ours
    outside = oci.bundle / "outside"
    outside.mkdir()
    shutil.rmtree(oci.rootfs / "dev", ignore_errors=True)
    (oci.rootfs / "dev").symlink_to(outside)
    oci.config["mounts"] = [{"destination": "/proc", "type": "proc", "source": "proc"}]
    done = oci.run("true")
    assert list(outside.iterdir()) == []
    assert done.returncode == 1
    assert "symbolic link" in done.stderr


def test_a_slave_root_sees_what_the_host_mounts_later(ours: Oci) -> None:
    ours.config["linux"]["rootfsPropagation"] = "rslave"
    (ours.rootfs / "later").mkdir()
    with contextlib.ExitStack() as stack:
        for command in (["--bind", ours.rootfs, ours.rootfs], ["--make-shared", ours.rootfs]):
            subprocess.run(["mount", *command], check=True)
        stack.callback(lambda: subprocess.run(["umount", "--lazy", "--recursive", ours.rootfs], check=True))
        name = ours.start("sleep", "100")
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", ours.rootfs / "later"], check=True)
        assert " /later " in ours.ok("exec", name, "cat", "/proc/self/mountinfo")
        ours.ok("delete", "--force", name)
