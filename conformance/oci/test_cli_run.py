"""What flags of run, create and exec change about how a container is made: the root, the keyring, who reaps."""

from __future__ import annotations

import ctypes
import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support import host, wait
from conformance.oci.support.notify import Listener

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("runc: run, exec")
KEYCTL, JOIN_SESSION_KEYRING = 250, 1


@pytest.mark.parametrize("verb", ["run", "create"])
def test_no_pivot(case: Case, verb: str) -> None:
    """With --no-pivot the root is the container's, too."""
    script = f"ls /; test ! -e {case.bundle} && echo inside"
    if verb == "run":
        said = case.output("sh", "-c", script, flags=("--no-pivot",))
    else:
        case.start("sh", "-c", script, flags=("--no-pivot",))
        said = case.until_printed("inside")
    assert {"bin", "proc", "inside"} <= set(said.split())


def test_no_pivot_hides_the_host(case: Case) -> None:
    """With --no-pivot nothing of the host comes to light below the container's own mounts."""
    case.grant("CAP_SYS_ADMIN")
    said = case.output("sh", "-c", "umount /proc; ls /proc; umount /sys; ls /sys; echo end", flags=("--no-pivot",))
    assert said.split() == ["end"]


def join_keyring() -> None:
    """Be in a session keyring called judge (keyctl(2))."""
    ctypes.CDLL(None, use_errno=True).syscall(KEYCTL, JOIN_SESSION_KEYRING, b"judge")


@pytest.mark.parametrize("flag", ["", "--no-new-keyring"])
@pytest.mark.parametrize("verb", ["run", "create"])
def test_keyring(case: Case, verb: str, flag: str) -> None:
    """A container has a session keyring of its own; with --no-new-keyring it has its caller's."""
    host.need(os.path.exists("/proc/keys"), "the kernel keeps no keys (CONFIG_KEYS)")
    host.need(os.uname().machine == "x86_64", "another number for keyctl(2)")
    flags = (flag,) if flag else ()
    name = case.new_id()
    case.write("sh", "-c", "cat /proc/keys >/keys; echo done >/done")
    streams = {"stdout": None, "stderr": None} if verb == "create" else {}
    case.ok(verb, *flags, name, preexec_fn=join_keyring, **streams)
    if verb == "create":
        case.ok("start", name)
    wait.wait_for((case.rootfs / "done").exists, "the keys to be listed")
    assert (name in (case.rootfs / "keys").read_text()) == (not flag), "its keyring is named after it"


ORPHAN = "(sleep 300 & echo $! >/orphan); exec sleep 300"


@pytest.mark.parametrize("flag", ["", "--no-subreaper"])
def test_subreaper(case: Case, flag: str) -> None:
    """`run` adopts what the container orphans in the host's PID namespace; with --no-subreaper somebody above does."""
    case.drop_namespace("pid")
    name = case.new_id()
    case.write("sh", "-c", ORPHAN)
    process = case.popen("run", *([flag] if flag else []), name)
    orphan = case.rootfs / "orphan"
    wait.wait_for(lambda: orphan.exists() and orphan.read_text().strip(), "the orphan")
    pid = int(orphan.read_text())

    def parent() -> int:
        found = re.search(r"^PPid:\s*(\d+)", host.read(f"/proc/{pid}/status"), re.MULTILINE)
        return int(found[1]) if found else 0

    try:
        if flag:
            wait.wait_for(lambda: parent() == os.getpid(), "the orphan to be somebody else's")
        else:
            wait.wait_for(lambda: parent() == process.pid, "the orphan to be the runtime's")
    finally:
        os.kill(pid, signal.SIGKILL)
        case.call("kill", name, "KILL")
        process.communicate(timeout=20 * wait.PATIENCE)


@pytest.mark.rule("runc: --pidfd-socket")
@pytest.mark.parametrize("verb", ["run", "exec"])
def test_pidfd_socket(case: Case, verb: str) -> None:
    """--pidfd-socket of run sends a descriptor of the container's process, that of exec one of the new process."""
    listener = Listener(case.bundle / "pidfd")
    flags, streams = ("--detach", "--pidfd-socket", str(listener.path)), {"stdout": None, "stderr": None}
    try:
        if verb == "run":
            name = case.new_id()
            case.write("sleep", "300")
            case.ok("run", *flags, name, **streams)
            wanted = case.pid()
        else:
            name = case.sleeper()
            case.ok("exec", *flags, "--pid-file", "exec.pid", name, "sleep", "300", **streams)
            wanted = int((case.bundle / "exec.pid").read_text())
        descriptor = listener.descriptor()
    finally:
        listener.close()
    said = host.read(f"/proc/self/fdinfo/{descriptor}")
    os.close(descriptor)
    assert f"Pid:\t{wanted}\n" in said


@pytest.mark.rule("runc: --console-socket")
def test_run_console_socket(case: Case) -> None:
    """A detached run sends the master of its terminal to --console-socket."""
    case.process["terminal"] = True
    listener = Listener(case.bundle / "console")
    name = case.new_id()
    case.write("sh", "-c", "tty; sleep 300")
    try:
        case.ok("run", "--detach", "--console-socket", str(listener.path), name, stdout=None, stderr=None)
        master = listener.descriptor()
    finally:
        listener.close()
    said = b""
    while b"\n" not in said:
        said += os.read(master, 100)
    os.close(master)
    assert said.startswith(b"/dev/")
