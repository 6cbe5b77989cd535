"""`exec`: one more process in a container, as every caller of runc expects it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support import cgroups, host, wait
from conformance.oci.support.probe import status

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("runc: exec")


def test_output(case: Case) -> None:
    """What the process prints comes out."""
    name = case.sleeper()
    assert case.ok("exec", name, "echo", "hello", "there") == "hello there\n"


def test_streams(case: Case) -> None:
    """Standard streams are the caller's."""
    name = case.sleeper()
    done = case.call("exec", name, "sh", "-c", "cat; echo wrong >&2", stdin=None, input="spoken")
    assert (done.stdout, done.stderr) == ("spoken", "wrong\n")


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exit_code(case: Case, code: int) -> None:
    """The exit code is the process's."""
    name = case.sleeper()
    assert case.call("exec", name, "sh", "-c", f"exit {code}").returncode == code


def test_exit_code_of_a_signal(case: Case) -> None:
    """A process that a signal killed gives 128 + its number."""
    name = case.sleeper()
    assert case.call("exec", name, "sh", "-c", "kill -9 $$").returncode == 137


def test_program_absent(case: Case) -> None:
    """A program that does not exist is an error that names it."""
    name = case.sleeper()
    assert "no-such-program" in case.fails("exec", name, "no-such-program")


def test_unknown_container(case: Case) -> None:
    """A container that does not exist is an error."""
    case.fails("exec", "judge-nobody", "true")


def test_stopped(case: Case) -> None:
    """Nothing can be executed in a stopped container."""
    name = case.start("true")
    case.until("stopped")
    case.fails("exec", name, "true")


def test_created(case: Case) -> None:
    """In a created container something can be executed already."""
    name = case.create("true")
    assert case.ok("exec", name, "echo", "early") == "early\n"
    assert case.status() == "created"


@pytest.mark.parametrize("kind", ["pid", "net", "ipc", "uts", "mnt", "cgroup", "user"])
def test_namespaces(case: Case, kind: str) -> None:
    """The process is in the container's namespaces."""
    case.sleeper()
    wanted = os.readlink(f"/proc/{case.pid()}/ns/{kind}")
    assert case.execute(f"readlink /proc/self/ns/{kind}") == wanted


def test_root(case: Case) -> None:
    """The process is in the container's root."""
    case.sleeper()
    assert "config.json" not in case.execute("ls / /..")


def test_cgroup(case: Case) -> None:
    """The process is in the container's cgroup."""
    case.sleeper()
    wanted = cgroups.folder(case.pid(), "pids")
    process = case.popen("exec", case.id, "sh", "-c", "echo $$; sleep 300")
    assert process.stdout is not None
    process.stdout.readline()
    wait.wait_for(
        lambda: len(host.read(f"{wanted}/cgroup.procs").split()) + _below(wanted) >= 3, "init, the shell and its sleep there"
    )


def _below(folder: str) -> int:
    return sum(len(host.read(f"{folder}/{name}/cgroup.procs").split()) for name in os.listdir(folder))


def test_environment(case: Case) -> None:
    """The environment is the container's; nothing of the caller's comes with it."""
    case.process["env"] += ["CONTAINERS=1"]
    name = case.sleeper()
    said = case.ok("exec", name, "sh", "-c", "echo $CONTAINERS$CALLERS", env=os.environ | {"CALLERS": "2"})
    assert said == "1\n"


def test_env(case: Case) -> None:
    """--env adds and overrides."""
    case.process["env"] += ["ONE=old"]
    case.sleeper()
    assert case.execute("echo $ONE $TWO", "--env", "ONE=new", "--env", "TWO=a b") == "new a b"


def test_cwd(case: Case) -> None:
    """--cwd is the working directory; without it, it is the container's."""
    case.process["cwd"] = "/etc"
    case.sleeper()
    assert case.execute("pwd", "--cwd", "/bin") == "/bin"
    assert case.execute("pwd") == "/etc"


@pytest.mark.parametrize(("user", "said"), [("1000", "1000 0"), ("1000:1001", "1000 1001"), ("5:6", "5 6")])
def test_user(case: Case, user: str, said: str) -> None:
    """--user gives the ids."""
    case.sleeper()
    assert case.execute("echo $(id -u) $(id -g)", "--user", user) in {said, said.replace(" 0", " 1000")}


def test_additional_gids(case: Case) -> None:
    """--additional-gids adds groups."""
    case.sleeper()
    said = case.execute("grep Groups /proc/self/status", "--additional-gids", "100", "--additional-gids", "65534")
    assert said.split() == ["Groups:", "100", "65534"]


def test_capability(case: Case) -> None:
    """--cap adds a capability."""
    case.sleeper()
    before = int(status(case.execute("cat /proc/self/status"))["CapEff"], 16)
    after = int(status(case.execute("cat /proc/self/status", "--cap", "CAP_CHOWN"))["CapEff"], 16)
    assert after == before | 1


def test_capabilities_of_the_container(case: Case) -> None:
    """Without --cap the sets are the container's."""
    case.process["capabilities"] = {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")}
    case.sleeper()
    assert int(status(case.execute("cat /proc/self/status"))["CapEff"], 16) == 1 << 5


def test_no_new_privileges(case: Case) -> None:
    """--no-new-privs sets the bit."""
    case.process["noNewPrivileges"] = False
    case.sleeper()
    assert status(case.execute("cat /proc/self/status", "--no-new-privs"))["NoNewPrivs"] == "1"


def test_process_file(case: Case) -> None:
    """--process gives the whole process in a file."""
    name = case.sleeper()
    process = case.process | {
        "args": ["sh", "-c", "echo $WORD $(id -u) $PWD; umask"],
        "env": ["PATH=/bin", "WORD=read"],
        "user": {"uid": 77, "gid": 78, "umask": 0o027},
        "cwd": "/etc",
    }
    (case.bundle / "process.json").write_text(json.dumps(process))
    assert case.ok("exec", "--process", str(case.bundle / "process.json"), name) == "read 77 /etc\n0027\n"


def test_detach(case: Case) -> None:
    """--detach does not wait for the process."""
    name = case.sleeper()
    pid_file = case.bundle / "exec.pid"
    case.ok("exec", "--detach", "--pid-file", str(pid_file), name, "sleep", "300", stdout=None, stderr=None)
    pid = int(pid_file.read_text())
    assert host.read(f"/proc/{pid}/cmdline") == "sleep\x00300\x00"
    assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{case.pid()}/ns/pid")


def test_detached_program_absent(case: Case) -> None:
    """--detach reports a program that does not exist."""
    name = case.sleeper()
    assert case.call("exec", "--detach", name, "no-such-program", stdout=None, stderr=None).returncode != 0


def test_pid_file(case: Case) -> None:
    """--pid-file holds the number the runtime sees."""
    name = case.sleeper()
    pid_file = case.bundle / "exec.pid"
    case.popen("exec", "--pid-file", str(pid_file), name, "sleep", "300")
    wait.wait_for(lambda: host.read(str(pid_file)), "the pid file")
    wait.wait_for(
        lambda: host.read(f"/proc/{host.read(str(pid_file))}/cmdline") == "sleep\x00300\x00", "its number to be sleep's"
    )


def test_preserve_fds(case: Case) -> None:
    """--preserve-fds passes descriptors from 3 on."""
    name = case.sleeper()
    read, write = os.pipe()
    os.write(write, b"through\n")
    os.close(write)
    done = case.call(
        "exec", "--preserve-fds", "1", name, "sh", "-c", "head -1 <&3", pass_fds=(3,), preexec_fn=lambda: os.dup2(read, 3)
    )
    os.close(read)
    assert done.stdout == "through\n", done.stderr


def test_preserve_fds_absent(case: Case) -> None:
    """A descriptor that is to be passed on but is not open is an error."""
    case.fails("exec", "--preserve-fds", "90", case.sleeper(), "true")


@pytest.mark.parametrize("count", ["1", "4"])
def test_preserve_fds_are_the_callers(case: Case, count: str) -> None:
    """What the runtime itself has open is never passed on, and not waited on either: refused, or nothing but the three."""
    done = case.run("sh", "-c", "ls /proc/self/fd | tr '\\n' ' '", flags=("--preserve-fds", count))
    assert done.returncode != 0 or set(done.stdout.split()) - {"3"} == {"0", "1", "2"}


def test_only_three_descriptors(case: Case) -> None:
    """Without --preserve-fds only the standard streams are open."""
    case.sleeper()
    assert set(case.execute("ls /proc/self/fd").split()) - {"3"} == {"0", "1", "2"}


def test_options_of_the_program(case: Case) -> None:
    """What stands behind the program's name belongs to the program."""
    name = case.sleeper()
    assert case.ok("exec", name, "echo", "--cwd", "-d", "--help") == "--cwd -d --help\n"


def test_many_at_once(case: Case) -> None:
    """Several processes may be executed at once."""
    name = case.sleeper()
    several = [case.popen("exec", name, "sh", "-c", f"sleep 0.1; echo {number}") for number in range(5)]
    assert [process.communicate(timeout=20)[0] for process in several] == [f"{number}\n" for number in range(5)]


def test_outlives_nothing(case: Case) -> None:
    """When the container ends, what was executed in it ends."""
    name = case.sleeper()
    process = case.popen("exec", name, "sleep", "300")
    wait.wait_for(lambda: len(host.read(f"{cgroups.folder(case.pid(), 'pids')}/cgroup.procs").split()) > 0, "the process")
    case.ok("kill", name, "KILL")
    case.until("stopped")
    assert process.wait(timeout=15) != 0


def test_sub_cgroup(case: Case) -> None:
    """--cgroup puts the process into a cgroup below the container's."""
    case.sleeper()
    folder = cgroups.folder(case.pid(), "pids")
    points = {
        cgroups.folder(case.pid(), name)
        for name in ("pids", "memory", "cpu", "devices", "freezer", "cpuset", "blkio", "cpuacct")
        if host.v2() or name in host.cgroup_mounts()
    }
    for point in points | ({cgroups.folder(case.pid(), "systemd")} if "systemd" in host.cgroup_mounts() else set()):
        os.makedirs(f"{point}/below", exist_ok=True)
        for part in ("cpuset.cpus", "cpuset.mems"):
            if not host.v2() and os.path.exists(f"{point}/{part}"):
                with open(f"{point}/below/{part}", "w", encoding="ascii") as file:
                    file.write(host.read(f"{point}/{part}"))
    point = f"{host.cgroup_mounts().get('', '/no')}/{case.id}"
    if os.path.isdir(point):
        os.makedirs(f"{point}/below", exist_ok=True)
    process = case.popen("exec", "--cgroup", "below", case.id, "sh", "-c", "echo here; sleep 300")
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n", process.communicate()
    assert host.read(f"{folder}/below/cgroup.procs").split()


@pytest.mark.parametrize("path", ["../other", "no-such-cgroup"])
def test_sub_cgroup_invalid(case: Case, path: str) -> None:
    """A cgroup that is not below the container's, or does not exist, is an error."""
    name = case.sleeper()
    case.fails("exec", "--cgroup", path, name, "true")
