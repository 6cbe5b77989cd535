"""The user's process: ids, capabilities, limits, environment, working directory, descriptors, seccomp, missing programs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system


def status(text: str) -> dict[str, str]:
    """Give /proc/self/status as a map."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def test_ids_groups_and_umask(oci: Oci) -> None:
    oci.config["process"]["user"] = {"uid": 1000, "gid": 2000, "additionalGids": [3000, 4000], "umask": 0o077}
    found = status(oci.output("cat", "/proc/self/status"))
    assert found["Uid"].split() == ["1000"] * 4
    assert found["Gid"].split() == ["2000"] * 4
    assert set(found["Groups"].split()) - {"2000"} == {"3000", "4000"}
    assert found["Umask"] == "0077"


def test_root_gets_the_capabilities_of_the_document(oci: Oci) -> None:
    sets = {"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_CHOWN"]}
    oci.config["process"]["capabilities"] = sets
    found = status(oci.output("cat", "/proc/self/status"))
    both, chown = f"{1 << 5 | 1:016x}", f"{1:016x}"
    assert found["CapBnd"] == both
    assert found["CapPrm"] == both
    assert found["CapEff"] in (both, chown)  # a root program gains the bounding set at execve(2)
    assert found["CapInh"] == f"{0:016x}"


def test_ambient_capabilities_reach_another_user(oci: Oci) -> None:
    names = ["CAP_NET_BIND_SERVICE"]
    oci.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    kinds = ("bounding", "permitted", "effective", "inheritable", "ambient")
    oci.config["process"]["capabilities"] = dict.fromkeys(kinds, names)
    found = status(oci.output("cat", "/proc/self/status"))
    for kind in ("CapAmb", "CapEff", "CapPrm", "CapInh"):
        assert found[kind] == f"{1 << 10:016x}", kind


def test_no_capabilities_at_all(oci: Oci) -> None:
    oci.config["process"]["capabilities"] = {}
    oci.config["process"]["user"] = {"uid": 5, "gid": 5}
    found = status(oci.output("cat", "/proc/self/status"))
    for kind in ("CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert found[kind] == f"{0:016x}", kind


@pytest.mark.parametrize("wanted", [True, False])
def test_no_new_privileges(oci: Oci, wanted: bool) -> None:
    oci.config["process"]["noNewPrivileges"] = wanted
    assert status(oci.output("cat", "/proc/self/status"))["NoNewPrivs"] == str(int(wanted))


def test_limits(oci: Oci) -> None:
    oci.config["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    lines = oci.output("cat", "/proc/self/limits").splitlines()
    assert next(line for line in lines if line.startswith("Max open files")).split()[3:5] == ["100", "200"]
    assert next(line for line in lines if line.startswith("Max core")).split()[4:6] == ["0", "0"]


def test_oom_score_adj(oci: Oci) -> None:
    oci.config["process"]["oomScoreAdj"] = 123
    assert oci.output("cat", "/proc/self/oom_score_adj").strip() == "123"


def test_environment_home_and_working_directory(oci: Oci) -> None:
    (oci.rootfs / "etc").mkdir(exist_ok=True)
    (oci.rootfs / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")
    (oci.rootfs / "srv/app").mkdir(parents=True)
    oci.config["process"] |= {"env": ["PATH=/bin", "ONE=1=1", "EMPTY="], "cwd": "/srv/app", "user": {"uid": 1000, "gid": 1000}}
    found = oci.shell("pwd; env")
    assert found.splitlines()[0] == "/srv/app"
    assert {"ONE=1=1", "EMPTY=", "HOME=/home/ann"} <= set(found.splitlines())


def test_a_missing_working_directory_is_made(oci: Oci) -> None:
    oci.config["root"]["readonly"] = False
    oci.config["process"]["cwd"] = "/new/folder"
    assert oci.output("pwd").strip() == "/new/folder"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nope"], ("executable file", "not found")),
        (["/bin/nope"], ("no such file or directory",)),
        (["/etc/plain"], ("permission denied",)),
    ],
)
def test_a_program_that_cannot_be_executed_fails_at_create(oci: Oci, args: list[str], words: tuple[str, ...]) -> None:
    (oci.rootfs / "etc").mkdir(exist_ok=True)
    (oci.rootfs / "etc/plain").write_text("#!/bin/sh\n")
    (oci.rootfs / "etc/plain").chmod(0o644)
    oci.write(*args)
    name = oci.new_id()
    done = oci.call("create", name)
    assert done.returncode != 0
    if oci.runtime != "crun":
        assert all(word in done.stderr.lower() for word in words), done.stderr
    assert oci.call("state", name).returncode != 0, "nothing may be left of a failed create"


def test_a_wrong_format_fails_at_start(oci: Oci) -> None:
    (oci.rootfs / "bin/junk").write_bytes(b"\x01\x02\x03\x04")
    (oci.rootfs / "bin/junk").chmod(0o755)
    done = oci.run("/bin/junk")
    assert done.returncode != 0
    assert "exec format error" in done.stderr.lower()


def test_only_the_standard_streams_are_open(oci: Oci) -> None:
    leaked = os.open("/", os.O_RDONLY)
    try:
        os.set_inheritable(leaked, True)
        found = oci.shell("for fd in /proc/self/fd/*; do readlink $fd || true; done", pass_fds=(leaked,))
    finally:
        os.close(leaked)
    assert "/" not in found.splitlines()
    assert len(found.splitlines()) <= 3 + 1  # the shell's own look at the directory


def test_preserved_descriptors_reach_the_program(oci: Oci) -> None:
    reader, writer = os.pipe()
    oci.write("sh", "-c", "echo through >&3")
    saved = os.dup(3) if os.path.exists("/proc/self/fd/3") else -1
    try:
        os.dup2(writer, 3, inheritable=True)
        name = oci.new_id()
        oci.ok("run", "--preserve-fds", "1", name, pass_fds=(3,))
        assert os.read(reader, 100) == b"through\n"
    finally:
        if saved >= 0:
            os.dup2(saved, 3, inheritable=False)
            os.close(saved)
        else:
            os.close(3)
        os.close(reader)
        os.close(writer)


def test_a_descriptor_that_is_not_open_cannot_be_preserved(oci: Oci) -> None:
    """However many are named: the first that is missing is told at once."""
    if oci.runtime == "crun":
        pytest.skip("crun does not look")
    oci.write("true")
    for count in ("500", "1000000000000"):
        assert oci.call("run", "--preserve-fds", count, oci.new_id()).returncode == 1


PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
}


@pytest.mark.parametrize("no_new_privileges", [True, False])
@pytest.mark.parametrize("uid", [0, 1000])
def test_a_seccomp_profile_holds(oci: Oci, no_new_privileges: bool, uid: int) -> None:
    oci.config["linux"]["seccomp"] = PROFILE
    oci.config["process"] |= {"noNewPrivileges": no_new_privileges, "user": {"uid": uid, "gid": uid}}
    found = oci.shell("mkdir /dev/x 2>&1 || true; cat /proc/self/status")
    assert "not supported" in found
    assert status(found.split("\n", 1)[1])["Seccomp"] == "2"


def test_a_narrow_profile_needs_nothing_for_the_runtime(ours: Oci) -> None:
    """What runc needs allowed (futex, openat, …) is needed here by the program only: the filter is loaded last."""
    ours.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": ["execve", "write", "exit_group", "brk", "arch_prctl", "mprotect"], "action": "SCMP_ACT_ALLOW"}],
    }
    assert ours.output("echo", "tight") == "tight\n"


def test_stdio_belongs_to_the_user(oci: Oci) -> None:
    oci.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    assert oci.shell("echo again > /dev/stdout") == "again\n"
