"""Masked and read-only paths, sysctls, personality, memory policy, propagation of the root, labels, Intel RDT."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from conformance.oci.support import host
from conformance.oci.support.probe import mount_at

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

MASKED = pytest.mark.rule("config-linux.md#masked-paths")
READONLY = pytest.mark.rule("config-linux.md#readonly-paths")
SYSCTL = pytest.mark.rule("config-linux.md#sysctl")
PERSONALITY = pytest.mark.rule("config-linux.md#personality")
POLICY = pytest.mark.rule("config-linux.md#memory-policy")
PROPAGATION = pytest.mark.rule("config-linux.md#rootfs-mount-propagation")
TABLE = "cat /proc/self/mountinfo"


@MASKED
def test_masked_file(case: Case) -> None:
    """A masked file reads as empty and keeps what is written to itself."""
    (case.rootfs / "secret").write_text("secret\n")
    case.linux["maskedPaths"] = ["/secret"]
    assert case.shell("cat /secret; echo x > /secret 2>/dev/null; cat /secret") == ""
    assert (case.rootfs / "secret").read_text() == "secret\n"


@MASKED
def test_masked_directory(case: Case) -> None:
    """A masked directory is empty and cannot be written."""
    (case.rootfs / "etc/sub").mkdir()
    (case.rootfs / "etc/sub/file").write_text("")
    case.linux["maskedPaths"] = ["/etc/sub"]
    assert case.shell("ls /etc/sub; touch /etc/sub/x 2>/dev/null && echo BAD; :") == ""


@MASKED
def test_masked_absent(case: Case) -> None:
    """A masked path that does not exist is no error, and is not made."""
    case.linux["maskedPaths"] = ["/no/such/path"]
    assert case.shell("test -e /no || echo absent") == "absent"


@MASKED
def test_masked_many(case: Case) -> None:
    """Several paths, the same one twice among them, are all masked."""
    for name in ("one", "two"):
        (case.rootfs / name).write_text("secret")
    case.linux["maskedPaths"] = ["/one", "/two", "/one", "/proc/kcore", "/proc/keys", "/sys/firmware"]
    assert case.shell("cat /one /two /proc/keys 2>/dev/null; ls /sys/firmware 2>/dev/null") == ""


@MASKED
def test_masked_through_a_link(case: Case) -> None:
    """A link in a masked path masks nothing of the host."""
    os.symlink("/proc/1", case.rootfs / "link")
    case.linux["maskedPaths"] = ["/link"]
    case.run("true")
    assert host.read("/proc/1/comm")


@MASKED
@pytest.mark.parametrize("link", ["/proc", "/sys"])
def test_masked_below_a_linked_proc(case: Case, link: str) -> None:
    """A root whose /proc or /sys is a link is not a way to another place: it is refused, or nothing outside is touched."""
    os.rmdir(case.rootfs / link[1:])
    os.symlink("/tmp", case.rootfs / link[1:])
    case.linux["maskedPaths"] = [f"{link}/kcore", f"{link}/firmware"]
    before = set(os.listdir("/tmp"))
    case.run("true")
    assert not {name for name in set(os.listdir("/tmp")) - before if name in {"kcore", "firmware", "self"}}


@MASKED
@pytest.mark.parametrize("path", ["relative", ""])
def test_masked_relative(case: Case, path: str) -> None:
    """A masked path must be absolute: what is not does not mask the directory the runtime happens to be in."""
    case.linux["maskedPaths"] = [path]
    done = case.run("ls", "/bin/busybox")
    assert done.returncode != 0 or done.stdout == "/bin/busybox\n"


@MASKED
def test_masked_for_exec(case: Case) -> None:
    """A masked path is masked for processes of `exec`."""
    (case.rootfs / "secret").write_text("secret\n")
    case.linux["maskedPaths"] = ["/secret"]
    case.sleeper()
    assert case.execute("cat /secret") == ""


@READONLY
def test_readonly_file(case: Case) -> None:
    """A read-only file can be read and not written."""
    (case.rootfs / "file").write_text("text\n")
    case.linux["readonlyPaths"] = ["/file"]
    said = case.shell("cat /file; (echo x > /file) 2>&1 || :")
    assert said.startswith("text\n")
    assert "Read-only" in said


@READONLY
def test_readonly_directory(case: Case) -> None:
    """In a read-only directory nothing can be made."""
    case.linux["readonlyPaths"] = ["/etc"]
    assert "Read-only" in case.shell("touch /etc/new 2>&1 || :")


@READONLY
def test_readonly_proc_sys(case: Case) -> None:
    """/proc/sys can be made read-only, and read."""
    case.linux["readonlyPaths"] = ["/proc/sys"]
    said = case.shell("cat /proc/sys/kernel/hostname; (echo x > /proc/sys/kernel/hostname) 2>&1 || :")
    assert said.startswith("judge\n")
    assert "Read-only" in said


@READONLY
def test_readonly_absent(case: Case) -> None:
    """A read-only path that does not exist is no error, and is not made."""
    case.linux["readonlyPaths"] = ["/no/such/path"]
    assert case.shell("test -e /no || echo absent") == "absent"


@READONLY
def test_readonly_keeps_flags(case: Case) -> None:
    """A path that becomes read-only keeps the other flags of its mount."""
    case.mount("/mnt", "tmpfs", "nosuid", "nodev", "noexec", kind="tmpfs")
    case.mount("/mnt/sub", "tmpfs", "nosuid", "nodev", "noexec", kind="tmpfs")
    case.linux["readonlyPaths"] = ["/mnt/sub"]
    assert {"ro", "nosuid", "nodev", "noexec"} <= mount_at(case.shell(TABLE), "/mnt/sub").options


@READONLY
def test_readonly_and_masked(case: Case) -> None:
    """The two lists do not disturb each other."""
    (case.rootfs / "etc/secret").write_text("secret")
    case.linux["readonlyPaths"] = ["/etc"]
    case.linux["maskedPaths"] = ["/etc/secret"]
    assert "secret" not in case.shell("cat /etc/secret; touch /etc/x 2>/dev/null || echo refused")


@SYSCTL
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net.ipv4.ip_forward", "1"),
        ("net.core.somaxconn", "257"),
        ("net.ipv4.ping_group_range", "0\t5"),
        ("kernel.shmmni", "128"),
        ("kernel.msgmax", "65000"),
        ("fs.mqueue.msg_max", "77"),
    ],
)
def test_sysctl(case: Case, name: str, value: str) -> None:
    """A sysctl of the container's own namespaces is set."""
    path = f"/proc/sys/{name.replace('.', '/')}"
    host.need(os.path.exists(path), f"no {path}")
    case.linux["sysctl"] = {name: value}
    assert case.shell(f"cat {path}") == value


@SYSCTL
def test_sysctl_not_the_hosts(case: Case) -> None:
    """The host's value stays."""
    before = host.read("/proc/sys/net/core/somaxconn")
    case.linux["sysctl"] = {"net.core.somaxconn": "333"}
    case.shell("true")
    assert host.read("/proc/sys/net/core/somaxconn") == before


@SYSCTL
def test_sysctl_with_slashes(case: Case) -> None:
    """A name may have slashes, as sysctl(8) allows, or is refused."""
    case.linux["sysctl"] = {"net/core/somaxconn": "334"}
    done = case.run("cat", "/proc/sys/net/core/somaxconn")
    assert done.returncode != 0 or done.stdout.strip() == "334"


@SYSCTL
@pytest.mark.parametrize(("name", "kind"), [("net.core.somaxconn", "network"), ("kernel.shmmni", "ipc")])
def test_sysctl_of_the_host(case: Case, name: str, kind: str) -> None:
    """A sysctl whose namespace is the host's is an error, and the host's value stays."""
    path = f"/proc/sys/{name.replace('.', '/')}"
    before = host.read(path)
    case.drop_namespace(kind)
    case.linux["sysctl"] = {name: before}
    case.run_refused("true", want=f"{name} is the host's")
    assert host.read(path) == before


@SYSCTL
@pytest.mark.parametrize("name", ["kernel.panic", "vm.swappiness", "kernel.core_pattern", "no.such.sysctl", "fs.file-max"])
def test_sysctl_not_namespaced(case: Case, name: str) -> None:
    """A sysctl that belongs to no namespace, or does not exist, is an error."""
    before = host.read(f"/proc/sys/{name.replace('.', '/')}")
    case.linux["sysctl"] = {name: before or "1"}
    case.run_refused("true", want=f"{name} is not the container's")


@SYSCTL
def test_sysctl_invalid_value(case: Case) -> None:
    """A value that the kernel refuses is an error."""
    case.linux["sysctl"] = {"net.ipv4.ip_forward": "maybe"}
    case.run_refused("true", want="the kernel refuses it")


@PERSONALITY
@pytest.mark.parametrize(("domain", "wanted"), [("LINUX32", "8"), ("LINUX", "0")])
def test_personality(case: Case, domain: str, wanted: str) -> None:
    """The execution domain is set."""
    case.linux["personality"] = {"domain": domain}
    assert case.shell("cat /proc/self/personality").lstrip("0").rjust(1, "0") == wanted.rjust(1, "0")


@PERSONALITY
def test_personality_machine(case: Case) -> None:
    """LINUX32 shows in uname(2)."""
    host.need(os.uname().machine == "x86_64", "an x86_64 kernel")
    case.linux["personality"] = {"domain": "LINUX32"}
    assert case.shell("uname -m") == "i686"


@PERSONALITY
def test_personality_of_exec(case: Case) -> None:
    """A process of `exec` has it too."""
    host.need(os.uname().machine == "x86_64", "an x86_64 kernel")
    case.linux["personality"] = {"domain": "LINUX32"}
    case.sleeper()
    assert case.execute("uname -m") == "i686"


@PERSONALITY
def test_personality_unknown(case: Case) -> None:
    """A domain that does not exist is an error."""
    case.linux["personality"] = {"domain": "SOLARIS"}
    case.run_refused("true", want="there is no such domain")


@POLICY
@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ({"mode": "MPOL_DEFAULT"}, "default"),
        ({"mode": "MPOL_LOCAL"}, "local"),
        ({"mode": "MPOL_BIND", "nodes": "0"}, "bind:0"),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0"}, "interleave:0"),
        ({"mode": "MPOL_PREFERRED", "nodes": "0"}, "prefer:0"),
        ({"mode": "MPOL_PREFERRED_MANY", "nodes": "0"}, "prefer (many):0"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, "bind=static:0"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}, "bind=relative:0"),
    ],
)
def test_memory_policy(case: Case, policy: dict[str, Any], wanted: str) -> None:
    """The memory policy is set."""
    host.need(host.has_numa(), "the kernel knows no memory policies")
    case.linux["memoryPolicy"] = policy
    assert case.shell("head -1 /proc/self/numa_maps").split(" ", 1)[1].startswith(wanted)


@POLICY
@pytest.mark.parametrize(
    "policy",
    [
        {"mode": "MPOL_NOSUCH"},
        {},
        {"mode": "MPOL_BIND"},
        {"mode": "MPOL_BIND", "nodes": "first"},
        {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NOSUCH"]},
        {"mode": "MPOL_DEFAULT", "nodes": "0"},
        {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]},
    ],
    ids=["mode", "no-mode", "no-nodes", "nodes", "flag", "needless-nodes", "both-flags"],
)
def test_memory_policy_invalid(case: Case, policy: dict[str, Any]) -> None:
    """What set_mempolicy(2) refuses is an error."""
    host.need(host.has_numa(), "the kernel knows no memory policies")
    case.linux["memoryPolicy"] = policy
    case.run_refused("true", want="there is no such policy")


@PROPAGATION
@pytest.mark.parametrize("word", ["private", "slave", "shared", "unbindable"])
@pytest.mark.parametrize("recursive", ["", "r"], ids=["one", "all"])
def test_root_propagation(case: Case, word: str, recursive: str) -> None:
    """The root's propagation is what was asked for; a slave's master is in the runtime's namespace."""
    case.linux["rootfsPropagation"] = recursive + word
    case.prefix = ["unshare", "-m", "--propagation", "shared", "--"]
    assert mount_at(case.shell(TABLE), "/").propagation in ({word, "private"} if word == "slave" else {word})


@PROPAGATION
def test_root_propagation_default(case: Case) -> None:
    """By default nothing that is mounted inside is seen outside."""
    case.grant("CAP_SYS_ADMIN")
    case.start("sh", "-c", "mount -t tmpfs tmpfs /mnt; echo mounted; sleep 300")
    case.until_printed("mounted")
    assert f"{case.rootfs}/mnt" not in host.read("/proc/self/mountinfo")


@pytest.mark.rule("config-linux.md#mount-label")
def test_mount_label(case: Case) -> None:
    """A mount label is given to mounts; without SELinux, asking for one is no silent success or has no effect on files."""
    case.linux["mountLabel"] = "system_u:object_r:container_file_t:s0:c1,c2"
    case.mount("/mnt", "tmpfs", kind="tmpfs")
    if host.has_selinux():
        assert "container_file_t" in case.shell(TABLE)
    else:
        assert case.run("true").returncode in {0, 1}


@pytest.mark.rule("config-linux.md#intelrdt")
def test_rdt(case: Case) -> None:
    """Intel RDT: a class of service is made, and goes with the container; where there is none, asking is an error."""
    case.linux["intelRdt"] = {"closID": case.id}
    if not host.has_resctrl():
        case.refused("true")
        return
    case.sleeper()
    assert str(case.pid()) in host.read(f"/sys/fs/resctrl/{case.linux['intelRdt']['closID']}/tasks").split()
