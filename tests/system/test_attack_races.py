"""Attacks that change a path between two looks at it: each is run for seconds, and nothing may cross even once.

The attacker is another container that shares a volume with the victim, or an image that holds what a runtime looks for. Here it
is a process that exchanges two names without end. The numbers are those of the advisories.
"""

from __future__ import annotations

import os
import pty
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import snapshot
from tests.support.racing import attacker, rounds
from tests.system.test_oci_root import bind

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system


class Arena:
    """A volume of the container in which `place` is now a directory, now a link out, and the host's directory it leads to."""

    def __init__(self, node: Oci) -> None:
        self.outside = node.bundle / "outside"
        self.volume = node.bundle / "volume"
        self.place = self.volume / "place"
        self.trap = self.volume / "trap"
        self.data = node.bundle / "data"
        for folder in (self.outside, self.place, self.data):
            folder.mkdir(parents=True)
        (self.outside / "secret").write_text("the host's")
        (self.data / "mine").write_text("the container's")
        self.trap.symlink_to("/../../../../../.." + str(self.outside))

    def untouched(self) -> bool:
        return os.listdir(self.outside) == ["secret"] and (self.outside / "secret").read_text() == "the host's"


@pytest.fixture
def arena(ours: Oci) -> Arena:
    made = Arena(ours)
    ours.config["mounts"].append(bind(made.volume, "/volume"))
    return made


def outcomes(node: Oci, arena: Arena, script: str) -> tuple[set[str], int]:
    """Run the victim again and again; give what it said and how often it could start at all."""
    said: set[str] = set()
    started = 0
    with attacker(arena.place, arena.trap):
        for _ in rounds():
            done = node.run("sh", "-c", script)
            assert arena.untouched()
            assert "Traceback" not in done.stderr
            if done.returncode == 0:
                said.add(done.stdout)
                started += 1
    return said, started


def test_a_mount_below_a_shared_volume(ours: Oci, arena: Arena) -> None:
    """CVE-2021-30465: the mount is inside the root, or there is no container; it never lands on the host's directory."""
    (arena.place / "target").mkdir()
    ours.config["mounts"].append(bind(arena.data, "/volume/place/target"))
    script = "grep -c '/target ' /proc/self/mountinfo; ls /volume/*/secret 2>/dev/null; true"
    said, started = outcomes(ours, arena, script)
    assert said == {"1\n"}  # where the link was followed, it was followed inside the root: no mount got lost
    assert started


def test_making_a_mount_point(ours: Oci, arena: Arena) -> None:
    """CVE-2024-45310: directories and files that are made for a mount are made inside the root only."""
    for name, source in (("deep/er/still", arena.data), ("file/in/it", arena.data / "mine")):
        ours.config["mounts"].append(bind(source, f"/volume/place/{name}"))
    _, started = outcomes(ours, arena, "true")
    assert started


def test_changing_the_working_directory(ours: Oci, arena: Arena) -> None:
    """CVE-2024-21626, raced: the working directory is made and entered inside the root, whatever it becomes meanwhile."""
    ours.config["process"]["cwd"] = "/volume/place/work"
    said, started = outcomes(
        ours, arena, 'pwd | grep -c unreachable; cat secret ../secret 2>/dev/null; test "$(pwd -P)" && true'
    )
    assert said <= {"0\n"}
    assert started


def test_exec_into_a_directory_that_changes(ours: Oci, arena: Arena) -> None:
    """CVE-2024-21626 for exec."""
    (arena.place / "work").mkdir()
    name = ours.start("sleep", "100")
    with attacker(arena.place, arena.trap):
        for _ in rounds():
            done = ours.call("exec", "--cwd", "/volume/place/work", name, "sh", "-c", "cat secret ../secret 2>/dev/null; true")
            assert done.stdout == ""
            assert arena.untouched()


def test_the_null_device_behind_a_mask(ours: Oci) -> None:
    """CVE-2025-31133: a /dev/null that is now a device, now a link to procfs, never becomes what masks a path."""
    dev = ours.bundle / "dev"
    (dev / "pts").mkdir(parents=True)
    os.mknod(dev / "null", 0o666 | 0o020000, os.makedev(1, 3))
    (dev / "trap").symlink_to("/proc/sys/kernel/core_pattern")
    ours.config["mounts"] = [ours.config["mounts"][0], bind(dev, "/dev")]
    (ours.rootfs / "hidden").write_text("hidden")
    ours.config["linux"]["maskedPaths"] = ["/hidden", "/proc/keys"]
    said = set()
    with attacker(dev / "null", dev / "trap"):
        for _ in rounds():
            done = ours.run("stat", "-c", "%F %t:%T", "/hidden", "/proc/keys")
            if done.returncode == 0:
                said.add(done.stdout)
    assert said == {"character special file 1:3\n" * 2}


def test_a_masked_path_that_changes(ours: Oci, arena: Arena) -> None:
    """A path to mask or to make read-only that becomes a link: what it leads to on the host is not mounted over."""
    ours.config["linux"]["maskedPaths"] = ["/volume/place"]
    ours.config["linux"]["readonlyPaths"] = ["/volume/place"]
    outcomes(ours, arena, "ls /volume/place/secret; true")
    assert not any(str(arena.outside) in mount for mount in snapshot.mounts())


def test_the_console(ours: Oci) -> None:
    """CVE-2025-52565: a /dev/console that becomes a link does not lead the terminal's mount over a file of procfs."""
    dev = ours.bundle / "dev"
    (dev / "pts").mkdir(parents=True)
    (dev / "console").write_text("")
    (dev / "trap").symlink_to("../proc/sys/kernel/core_pattern")
    mounts = ours.config["mounts"]
    ours.config["mounts"] = [mounts[0], bind(dev, "/dev"), mounts[2]]
    ours.config["process"]["terminal"] = True
    with attacker(dev / "console", dev / "trap"):
        for _ in rounds():
            mounted = on_a_terminal(ours, "cat", "/proc/self/mountinfo")
            assert "/proc/sys" not in mounted, mounted


def on_a_terminal(node: Oci, *args: str) -> str:
    """Run a program in the foreground on a terminal and give what it wrote there."""
    node.write(*args)
    master, slave = pty.openpty()
    command: list[Any] = [*node.prefix, node.program, "--root", str(node.root), "run", node.new_id()]
    written = b""
    try:
        with subprocess.Popen(command, cwd=node.bundle, stdin=slave, stdout=slave, stderr=slave, start_new_session=True):
            os.close(slave)
            while chunk := _read(master):
                written += chunk
    finally:
        os.close(master)
    return written.decode()


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # the last one who had the other side has closed it
        return b""


def faked_proc(folder: Path) -> dict[Path, str]:
    """Lay out what looks like a procfs to who writes sysctls and labels, and give its files with what is in them."""
    files = [folder / name for name in ("sys/net/ipv4/ip_forward", "self/attr/exec", "self/attr/apparmor/exec", "keys")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("fake")
    (folder / "thread-self").symlink_to("self")
    return dict.fromkeys(files, "fake")


def contents(files: Iterable[Path]) -> dict[Path, str]:
    return {file: file.read_text() for file in files}


def test_writes_to_a_proc_that_is_none(ours: Oci, arena: Arena) -> None:
    """CVE-2025-52881, 2019-19921 and 2023-27561: nothing but a procfs comes to /proc, and nothing at all into it."""
    fake = ours.bundle / "fake"
    (fake / "sys/net/ipv4").mkdir(parents=True)
    (fake / "sys/net/ipv4/ip_forward").symlink_to("/../../../../.." + str(arena.outside / "secret"))
    (fake / "self/attr").mkdir(parents=True)
    (ours.rootfs / "other").symlink_to("proc")
    ours.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    proc, *others = ours.config["mounts"]
    tmpfs = {"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}
    for mounts, words in (
        ([bind(fake, "/proc")], "not of type proc"),
        ([tmpfs], "not of type proc"),
        ([bind(fake, "/proc"), proc], "not of type proc"),
        ([proc, bind(fake, "/proc")], "not of type proc"),
        ([bind(fake, "/other")], "not of type proc"),
        ([proc, bind(fake, "/other")], "not of type proc"),
        ([proc, bind(fake / "sys", "/proc/sys")], "inside /proc"),
        ([proc, bind(fake / "self", "/proc/self")], "inside /proc"),
        ([proc, bind(fake / "sys", "/other/sys")], "inside /proc"),
    ):
        ours.config["mounts"] = [*mounts, *others]
        done = ours.run("true")
        assert (done.returncode, words in done.stderr) == (1, True), (mounts, done.stderr)
        assert arena.untouched()


def test_an_image_with_a_proc_of_its_own(ours: Oci) -> None:
    """CVE-2023-28642 and 2023-27561: where no procfs is mounted, nothing is written to what the image has instead."""
    files = faked_proc(ours.rootfs / "proc")
    ours.config["mounts"] = ours.config["mounts"][1:]
    assert ours.output("cat", "/proc/self/attr/exec") == "fake"
    ours.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    ours.run("true")
    assert contents(files) == files


def test_a_proc_that_changes(ours: Oci) -> None:
    """CVE-2019-19921, 2023-27561 and 2025-52881, raced: sysctls and masks are of procfs, whatever is at /proc by then."""
    fake = ours.rootfs / "fake"
    files = faked_proc(fake)
    ours.config["linux"] |= {
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "maskedPaths": ["/proc/keys", "/proc/timer_list"],  # what looks like it has only one of them
        "readonlyPaths": ["/proc/sys"],
    }
    ours.config["mounts"] = ours.config["mounts"][:2]
    said = set()
    with attacker(ours.rootfs / "proc", fake):
        for _ in rounds():
            done = ours.run("sh", "-c", "cat /proc/sys/net/ipv4/ip_forward /proc/keys; cat /proc/timer_list; true")
            said.add(done.stdout if done.returncode == 0 else "refused")
    found = fake if (fake / "keys").exists() else ours.rootfs / "proc"
    assert {(found / file.relative_to(fake)).read_text() for file in files} == {"fake"}
    assert said <= {"1\n", "refused", "fakefake", "1\nfake", "fake", ""}, said
    assert "1\n" in said


@pytest.mark.parametrize("more", [[], ["CAP_SYS_PTRACE"]], ids=["usual", "tracing"])
def test_looking_into_exec(ours: Oci, more: list[str]) -> None:
    """CVE-2016-9962 and 2019-5736, raced: a container that looks at every new process gets at nothing of the host's.

    One that may trace sees the sealed copy the runtime runs from, but cannot write to it and finds no way to the host's files.
    """
    ours.config["root"]["readonly"] = False
    ours.config["process"]["noNewPrivileges"] = False
    for kind in ("bounding", "effective", "permitted"):
        ours.config["process"]["capabilities"][kind] += ["CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", *more]
    script = (
        "while :; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) ;; *) "
        "ls -l $p/exe $p/fd/ 2>/dev/null >> /seen; readlink $p/cwd >> /seen; "
        "true 2>/dev/null >> $p/exe && echo written >> /seen;; esac; done; done"
    )
    name = ours.start("sh", "-c", script)
    for _ in rounds():
        ours.ok("exec", name, "true")
    seen = (ours.rootfs / "seen").read_text()
    assert "/exe" in seen  # it did look
    for trace in ("written", "unreachable", str(ours.bundle), "state.json", *([] if more else ["python", "memfd"])):
        assert trace not in seen
