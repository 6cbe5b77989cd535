"""The eight namespaces: new ones, those of a path, and the runtime's own."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support import host, wait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config-linux.md#namespaces")
FILES = {
    "pid": "pid",
    "network": "net",
    "mount": "mnt",
    "ipc": "ipc",
    "uts": "uts",
    "user": "user",
    "cgroup": "cgroup",
    "time": "time",
}
FLAGS = {"pid": "-p", "network": "-n", "ipc": "-i", "uts": "-u", "cgroup": "-C", "time": "-T"}


def of(pid: int | str, kind: str) -> str:
    """Give the name of a process's namespace."""
    return os.readlink(f"/proc/{pid}/ns/{FILES[kind]}")


def prepare(case: Case, kind: str) -> None:
    """Ask for a namespace and for what it needs."""
    host.need(host.has_namespace(FILES[kind]), f"the kernel has no {kind} namespaces")
    if kind == "user":
        host.need_user_namespaces()
        case.userns()
    else:
        case.namespace(kind)


@pytest.mark.parametrize("kind", FILES)
def test_new(case: Case, kind: str) -> None:
    """A namespace without a path is a new one."""
    prepare(case, kind)
    case.sleeper()
    assert of(case.pid(), kind) != of("self", kind)


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind != "mount"])
def test_absent(case: Case, kind: str) -> None:
    """A namespace that is not in the list is the runtime's own."""
    host.need(host.has_namespace(FILES[kind]), f"the kernel has no {kind} namespaces")
    case.drop_namespace(kind)
    if kind == "uts":
        del case.config["hostname"]
    if kind == "network":
        case.config["mounts"] = [entry for entry in case.config["mounts"] if entry["destination"] != "/sys"]
    case.sleeper()
    assert of(case.pid(), kind) == of("self", kind)


@pytest.fixture
def holder(request: pytest.FixtureRequest) -> Iterator[int]:
    """Start a process in a namespace of its own; give its id."""
    kind = request.param
    host.need(host.has_namespace(FILES[kind]), f"the kernel has no {kind} namespaces")
    fork = ["--fork", "--kill-child"] if kind in {"pid", "time"} else []
    process = subprocess.Popen(
        ["unshare", FLAGS[kind], *fork, "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    wait.ours.add(process.pid)
    assert process.stdout is not None
    process.stdout.readline()
    pid = process.pid
    if fork:
        pid = int(host.read(f"/proc/{pid}/task/{pid}/children").split()[0])
    try:
        yield pid
    finally:
        process.kill()
        process.communicate()
        wait.ours.discard(process.pid)


PATHS = [(kind, kind) for kind in FLAGS]


@pytest.mark.parametrize(("holder", "kind"), PATHS, indirect=["holder"], ids=list(FLAGS))
def test_path(case: Case, holder: int, kind: str) -> None:
    """A namespace with a path is the one of that path."""
    case.namespace(kind, f"/proc/{holder}/ns/{FILES[kind]}")
    case.sleeper()
    assert of(case.pid(), kind) == of(holder, kind)


@pytest.mark.parametrize(("holder", "kind"), PATHS, indirect=["holder"], ids=list(FLAGS))
def test_exec_is_in_them(case: Case, holder: int, kind: str) -> None:
    """A process of `exec` is in the namespaces of its container."""
    case.namespace(kind, f"/proc/{holder}/ns/{FILES[kind]}")
    case.sleeper()
    assert case.execute(f"readlink /proc/self/ns/{FILES[kind]}") == of(holder, kind)


def test_path_through_a_bind_mount(case: Case) -> None:
    """A namespace that is pinned by a bind mount can be joined."""
    pin = case.bundle / "pin"
    pin.write_text("")
    subprocess.run(["unshare", f"--net={pin}", "true"], check=True)
    try:
        case.namespace("network", str(pin))
        case.sleeper()
        assert os.stat(f"/proc/{case.pid()}/ns/net").st_ino == os.stat(pin).st_ino
    finally:
        subprocess.run(["umount", "-l", pin], check=True)


def test_own_path(case: Case) -> None:
    """The runtime's own namespace may be named by its path."""
    case.namespace("ipc", f"/proc/{os.getpid()}/ns/ipc")
    case.sleeper()
    assert of(case.pid(), "ipc") == of("self", "ipc")


@pytest.mark.parametrize(("holder", "kind"), [("network", "ipc"), ("ipc", "uts"), ("uts", "network")], indirect=["holder"])
def test_path_of_another_type(case: Case, holder: int, kind: str) -> None:
    """A path to a namespace of another type is an error."""
    other = next(name for name in FLAGS if of(holder, name) != of("self", name))
    case.namespace(kind, f"/proc/{holder}/ns/{FILES[other]}")
    case.refused("true")


@pytest.mark.parametrize("path", ["/no/such/path", "relative/path", "/etc/passwd"])
def test_path_to_nothing(case: Case, path: str) -> None:
    """A path that is no namespace is an error."""
    case.namespace("ipc", path)
    case.refused("true")


@pytest.mark.parametrize("kind", ["pid", "network", "mount", "ipc", "uts"])
def test_twice(case: Case, kind: str) -> None:
    """A type that is given twice is an error."""
    case.linux["namespaces"].append({"type": kind})
    case.refused("true")


def test_network_is_empty(case: Case) -> None:
    """A new network namespace has a loopback interface that is up, and nothing else."""
    said = case.shell("ls /sys/class/net; ip addr show lo; ping -c 1 -W 1 127.0.0.1 > /dev/null 2>&1 || :")
    assert said.splitlines()[0] == "lo"
    assert "127.0.0.1" in said
    assert "LOOPBACK,UP" in said


def test_pid_namespace_hides_the_host(case: Case) -> None:
    """In a new pid namespace the program is process 1 and sees no other but its children."""
    assert case.shell("echo $$; ls -d /proc/[0-9]* | wc -l; echo").split()[0] == "1"


def test_host_pid_namespace(case: Case) -> None:
    """In the runtime's pid namespace the program has the same number for itself as for the runtime."""
    case.drop_namespace("pid")
    case.start("sh", "-c", "echo $$; sleep 5")
    case.until_printed(str(case.pid()))


def test_host_pid_namespace_kill(case: Case) -> None:
    """Without a pid namespace of its own, deleting a container by force ends all its processes."""
    case.drop_namespace("pid")
    name = case.start("sh", "-c", "sleep 300 & sleep 300 & echo ready; wait")
    case.until_printed("ready")
    case.ok("delete", "--force", name)


def test_ipc_is_its_own(case: Case) -> None:
    """Objects of System V IPC of the host are not seen."""
    assert len(case.shell("cat /proc/sysvipc/shm /proc/sysvipc/sem /proc/sysvipc/msg").splitlines()) == 3


def test_cgroup_namespace(case: Case) -> None:
    """In a new cgroup namespace the container's own cgroup is the root."""
    host.need(host.has_namespace("cgroup"), "the kernel has no cgroup namespaces")
    case.namespace("cgroup")
    lines = case.shell("cat /proc/self/cgroup").splitlines()
    joined = [line for line in lines if line.split(":")[1] == "pids"] or lines
    assert joined[0].endswith(":/")


def test_no_namespaces(case: Case) -> None:
    """Every namespace but the mount one may be the runtime's."""
    case.drop_namespace("pid", "network", "ipc", "uts")
    del case.config["hostname"]
    case.config["mounts"] = []
    case.mount("/proc", "/proc", "rbind")
    assert case.shell("echo yes") == "yes"


@pytest.mark.rule("config-linux.md#offset-for-time-namespace")
def test_time_offsets(case: Case) -> None:
    """The clocks of a time namespace are ahead by the offsets."""
    host.need(host.has_namespace("time"), "the kernel has no time namespaces")
    case.namespace("time")
    case.linux["timeOffsets"] = {"monotonic": {"secs": 7881, "nanosecs": 2718281}, "boottime": {"secs": 100000, "nanosecs": 0}}
    said = case.shell("cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime").splitlines()
    assert said[0].split() == ["monotonic", "7881", "2718281"]
    assert said[1].split() == ["boottime", "100000", "0"]
    assert int(said[2]) >= 100000


@pytest.mark.rule("config-linux.md#offset-for-time-namespace")
def test_time_offsets_of_exec(case: Case) -> None:
    """A process of `exec` has the container's clocks."""
    host.need(host.has_namespace("time"), "the kernel has no time namespaces")
    case.namespace("time")
    case.linux["timeOffsets"] = {"boottime": {"secs": 1000000}}
    case.sleeper()
    assert int(case.execute("cut -d. -f1 /proc/uptime")) >= 1000000


@pytest.mark.rule("config-linux.md#offset-for-time-namespace")
def test_time_without_offsets(case: Case) -> None:
    """A time namespace without offsets has the host's clocks."""
    host.need(host.has_namespace("time"), "the kernel has no time namespaces")
    case.namespace("time")
    before = float(host.read("/proc/uptime").split()[0])
    assert abs(float(case.shell("cut -d' ' -f1 /proc/uptime")) - before) < 60


@pytest.mark.rule("config-linux.md#offset-for-time-namespace")
@pytest.mark.parametrize("offsets", [{"sidereal": {"secs": 1}}, {"boottime": {"secs": 1, "nanosecs": 2000000000}}])
def test_time_offsets_invalid(case: Case, offsets: dict[str, object]) -> None:
    """A clock or an offset that does not exist is an error."""
    host.need(host.has_namespace("time"), "the kernel has no time namespaces")
    case.namespace("time")
    case.linux["timeOffsets"] = offsets
    case.refused("true")


@pytest.mark.rule("config-linux.md#offset-for-time-namespace")
def test_time_offsets_without_namespace(case: Case) -> None:
    """Offsets without a time namespace are an error."""
    host.need(host.has_namespace("time"), "the kernel has no time namespaces")
    case.linux["timeOffsets"] = {"boottime": {"secs": 1000}}
    case.refused("true")
