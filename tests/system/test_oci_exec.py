"""exec, and terminals of run and exec."""

from __future__ import annotations

import array
import json
import os
import pty
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system


def test_exec_shares_everything_with_the_container(oci: Oci) -> None:
    name = oci.start("sleep", "100")
    kinds = ("pid", "net", "ipc", "uts", "mnt")
    script = f"for k in {' '.join(kinds)}; do readlink /proc/self/ns/$k; done; hostname; cat /proc/self/cgroup; id -u; pwd"
    lines = oci.ok("exec", name, "sh", "-c", script).splitlines()
    pid = oci.state(name)["pid"]
    for kind, found in zip(kinds, lines, strict=False):
        assert found == os.readlink(f"/proc/{pid}/ns/{kind}")
    assert "boat" in lines
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
        pids = next(line for line in file.read().splitlines() if ":pids:" in line or line.startswith("0::"))
    assert pids in lines


@pytest.mark.parametrize("code", [0, 3])
def test_exec_gives_the_exit_code(oci: Oci, code: int) -> None:
    name = oci.start("sleep", "100")
    assert oci.call("exec", name, "sh", "-c", f"exit {code}").returncode == code


def test_exec_overrides(oci: Oci) -> None:
    name = oci.start("sleep", "100")
    found = oci.ok(
        "exec", "--user", "1000:2000", "--cwd", "/bin", "--env", "MORE=1", name, "/bin/sh", "-c", "id -u; id -g; pwd; env"
    )
    assert found.splitlines()[:3] == ["1000", "2000", "/bin"]
    assert "MORE=1" in found.splitlines()


def test_exec_of_a_whole_process(oci: Oci) -> None:
    name = oci.start("sleep", "100")
    process = oci.config["process"] | {
        "args": ["sh", "-c", "grep -E 'NoNewPrivs|CapEff|Umask' /proc/self/status; ulimit -n"],
        "user": {"uid": 9, "gid": 9, "umask": 0o027},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}],
        "capabilities": {},
    }
    path = oci.bundle / "process.json"
    path.write_text(json.dumps(process))
    lines = oci.ok("exec", "--process", str(path), name).split()
    if oci.runtime == "runc":
        lines[1] = "0027"  # runc 1.1 leaves the umask of an exec alone
        lines[6] = "77"  # and, built with some versions of Go, has the soft limit raised
    assert lines == ["Umask:", "0027", "CapEff:", f"{0:016x}", "NoNewPrivs:", "1", "77"]


def test_exec_detached_with_a_pid_file(oci: Oci) -> None:
    name = oci.start("sleep", "100")
    pid_file = oci.bundle / "exec.pid"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    assert oci.call("exec", "--detach", "--pid-file", str(pid_file), name, "sleep", "50", **quiet).returncode == 0
    pid = int(pid_file.read_text())
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        assert file.read() == b"sleep\x0050\x00"
    assert pid in json.loads(oci.ok("ps", "--format", "json", name))


def test_exec_is_under_the_container_s_seccomp_profile(oci: Oci) -> None:
    oci.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
    }
    name = oci.start("sleep", "100")
    done = oci.call("exec", name, "mkdir", "/dev/x")
    assert done.returncode != 0
    assert "not supported" in done.stderr


def test_exec_of_a_missing_program(oci: Oci) -> None:
    name = oci.start("sleep", "100")
    done = oci.call("exec", name, "nope")
    assert done.returncode != 0
    assert oci.runtime == "crun" or "executable file not found" in done.stderr
    assert oci.state(name)["status"] == "running"
    assert len(json.loads(oci.ok("ps", "--format", "json", name))) == 1, "nothing may be left of a failed exec"


def test_exec_needs_a_running_container(oci: Oci) -> None:
    name = oci.start("sleep", "100")
    oci.ok("kill", name, "KILL")
    oci.wait_status(name, "stopped")
    assert oci.call("exec", name, "true").returncode != 0


def test_a_terminal_is_sent_over_the_console_socket(oci: Oci) -> None:
    oci.config["process"] |= {"terminal": True, "consoleSize": {"height": 33, "width": 77}}
    oci.write(
        "sh", "-c", "read line; tty; stty size; ls -l /dev/console; ps -o pid,tty,comm; echo got $line; test -t 0 && echo yes"
    )
    path = oci.bundle / "console.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        name = oci.new_id()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        assert oci.call("create", "--console-socket", str(path), name, **quiet).returncode == 0
        connection, _ = listener.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
    master = array.array("i", ancillary[0][2])[0]
    try:
        assert os.isatty(master)
        oci.ok("start", name)
        os.write(master, b"hello\n")
        text = read_all(master)
    finally:
        os.close(master)
    assert "got hello" in text
    assert "yes" in text
    assert "/dev/pts/0" in text or "/dev/console" in text
    assert "33 77" in text


def read_all(master: int) -> str:
    """Read a terminal until its other side is closed."""
    parts = []
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts).decode()


def test_run_with_a_terminal_in_the_foreground(oci: Oci) -> None:
    oci.config["process"]["terminal"] = True
    oci.write("sh", "-c", "test -t 0 && test -t 1 && echo terminal; exit 4")
    command = [*oci.prefix, oci.program, "--root", str(oci.root), "run", oci.new_id()]
    master, slave = pty.openpty()
    try:
        with subprocess.Popen(
            command, cwd=oci.bundle, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        ) as child:
            os.close(slave)
            text = read_all(master)
            code = child.wait(30)
    finally:
        os.close(master)
    assert "terminal" in text
    assert code == 4


def test_a_terminal_without_a_devpts_is_refused(ours: Oci) -> None:
    """CVE-2025-52565: the master comes from a devpts and nothing else."""
    ours.config["process"]["terminal"] = True
    ours.config["mounts"] = [mount for mount in ours.config["mounts"] if mount["type"] != "devpts"]
    (ours.rootfs / "dev/pts").mkdir(parents=True, exist_ok=True)
    (ours.bundle / "pts").mkdir()
    (ours.bundle / "pts/ptmx").write_text("")
    ours.config["mounts"].append(
        {"destination": "/dev/pts", "type": "bind", "source": str(ours.bundle / "pts"), "options": ["bind"]}
    )
    path = ours.bundle / "console.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        ours.write("true")
        done = ours.call("create", "--console-socket", str(path), ours.new_id())
    assert done.returncode != 0
    assert "devpts" in done.stderr


REAPING_CALLER = """
import os, select, sys
from runtime import api
from runtime.kernel.prctl import set_child_subreaper
from runtime.launch.setns import exec_steps
from runtime.spec.parse import parse_process

root, container = sys.argv[1:]
process = parse_process({"args": ["true"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}})
set_child_subreaper()
steps = exec_steps(api.ExecRequest(container_id=container, state_root=root, process=process))
try:
    while True:
        select.select([next(steps)], [], [], 10)
        os.waitid(os.P_ALL, 0, os.WEXITED | (0 if "reaped" not in globals() else os.WNOHANG))
        reaped = True
except StopIteration as stop:
    print(stop.value)
"""
"""Waits, before it goes on the first time, until the process that forks the one in the container has ended, and reaps it."""


def test_a_caller_may_reap_what_an_exec_forks(ours: Oci) -> None:
    """The monitor's loop reaps every child as it ends, also those between two steps of an exec."""
    ours.config["linux"]["namespaces"].append({"type": "time"})
    name = ours.start("sleep", "100")
    words = [sys.executable, "-c", REAPING_CALLER, str(ours.root), name]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 1
