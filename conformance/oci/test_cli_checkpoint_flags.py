"""What each flag of checkpoint and restore lets be saved: connections, sockets, terminals, locks, files, memory elsewhere."""

from __future__ import annotations

import ctypes
import fcntl
import os
import pty
import select
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from conformance.oci.support import criu, host, wait
from conformance.oci.support.notify import Listener
from conformance.oci.support.saving import COUNT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conformance.oci.support.case import Case
    from conformance.oci.support.saving import Saving

CHECKPOINT = pytest.mark.rule("runc: checkpoint, restore")
IDLE = "while :; do sleep 0.05; done"
PIDFD_GETFD = 438


@pytest.fixture
def netns(case: Case, scratch: Path) -> Iterator[str]:
    """Give a network namespace of the host, its loopback up, that the container joins by its path."""
    path = scratch / f"netns-{case.id}"
    path.touch()
    subprocess.run(["unshare", f"--net={path}", "ip", "link", "set", "lo", "up"], check=True)
    case.namespace("network", str(path))
    yield str(path)
    subprocess.run(["umount", str(path)], check=True)


LISTEN = "tail -f /dev/null | nc -l -p 4711 >/shared/heard & until grep -q ':1267 .* 0A' /proc/net/tcp*; do sleep 0.02; done; "
TALK = LISTEN + "(i=0; while :; do i=$((i+1)); echo $i; echo $i >/shared/count; sleep 0.03; done) | nc 127.0.0.1 4711"


@CHECKPOINT
@pytest.mark.usefixtures("netns")
def test_tcp_established(saving: Saving) -> None:
    """An open TCP connection cannot be saved; with --tcp-established it can, and carries on what was begun."""
    saving.start(TALK)
    saving.until_written("heard", "3\n")
    assert saving.refused()
    saving.counts()
    saving.save("--tcp-established")
    saving.restore("--tcp-established")
    counted = saving.count()
    wait.wait_for(lambda: f"\n{counted + 5}\n" in saving.text("heard") + "\n", "the connection to carry on")
    heard = saving.text("heard").split()
    assert heard == [str(number + 1) for number in range(len(heard))]


@CHECKPOINT
def test_tcp_skip_in_flight(saving: Saving, netns: str) -> None:
    """A connection nobody has accepted yet cannot be saved; --tcp-skip-in-flight leaves it out."""
    host.need_controller("freezer")
    saving.start(LISTEN + COUNT)
    saving.counts()
    saving.case.ok("pause", saving.name)
    join = ["nsenter", f"--net={netns}", "busybox", "nc", "127.0.0.1", "4711"]
    with subprocess.Popen(join, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as caller:
        wait.ours.add(caller.pid)
        try:
            wait.wait_for(lambda: _established(netns), "the connection to be made")
            saving.refused(status="paused")
            saving.save("--tcp-skip-in-flight")
        finally:
            caller.kill()
    wait.ours.discard(caller.pid)
    saving.restore()
    saving.counts()


def _established(netns: str) -> bool:
    command = ["nsenter", f"--net={netns}", "cat", "/proc/net/tcp", "/proc/net/tcp6"]
    return " 01 " in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@CHECKPOINT
def test_ext_unix_sk(saving: Saving) -> None:
    """A socket connected to one of the host cannot be saved; with --ext-unix-sk it can, and reaches it again."""
    place = saving.shared / "s"
    saving.case.drop_namespace("network")  # in which the socket is, too
    saving.case.config["mounts"][-1]["destination"] = str(saving.shared)  # a socket is found again by its name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(place))
        server.settimeout(10 * wait.PATIENCE)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.connect(str(place))
            saving.start("while :; do echo word; sleep 0.05; done", stdout=client)
        assert server.recv(100) == b"word\n"
        saving.refused()
        saving.save("--ext-unix-sk")
        while select.select([server], [], [], 0)[0]:
            server.recv(100)
        saving.restore("--ext-unix-sk")
        assert server.recv(100) == b"word\n"


@CHECKPOINT
def test_shell_job(saving: Saving) -> None:
    """With --shell-job a program on a terminal of the host can be saved, and gets that of the restore."""
    first, second = pty.openpty(), pty.openpty()
    try:
        saving.start("while read word; do echo got $word; done", stdin=first[1], stdout=first[1], stderr=first[1])
        _ask(first[0])
        saving.save("--shell-job")
        saving.restore("--shell-job", stdin=second[1], stdout=second[1], stderr=second[1])
        _ask(second[0])
    finally:
        for end in (*first, *second):
            os.close(end)


@pytest.fixture
def console(saving: Saving) -> Iterator[Listener]:
    """Start a container with a terminal of its own; give who gets its master."""
    saving.case.process["terminal"] = True
    saving.name = saving.case.new_id()
    saving.case.write("sh", "-c", "stty -echo; echo ready; while read word; do echo got $word; done")
    listener = Listener(saving.case.bundle / "console")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    done = saving.case.call("run", "--detach", "--console-socket", str(listener.path), saving.name, **quiet)
    assert done.returncode == 0
    master = listener.descriptor()
    _until(master, "ready")
    _ask(master)
    saving.save()
    os.close(master)
    yield listener
    listener.close()


@CHECKPOINT
def test_console_socket(saving: Saving, console: Listener) -> None:
    """A container with a terminal of its own gets one again, whose master goes to the console socket of the restore."""
    saving.restore("--console-socket", str(console.path))
    master = console.descriptor()
    _ask(master)
    os.close(master)


@CHECKPOINT
@pytest.mark.usefixtures("console")
def test_terminal_attended(saving: Saving) -> None:
    """Without --detach its terminal is that of `restore`."""
    master, slave = pty.openpty()
    streams = {"stdin": slave, "stdout": slave, "stderr": slave}
    words = ("restore", "--image-path", str(saving.images), saving.name)
    process = saving.case.popen(*words, env=criu.environment(), **streams)
    os.close(slave)
    _ask(master)
    saving.case.ok("kill", saving.name, "KILL")
    assert process.wait(timeout=20 * wait.PATIENCE) == 137
    os.close(master)


def _ask(master: int) -> None:
    os.write(master, b"ping\n")
    _until(master, "got ping")


def _until(master: int, text: str) -> None:
    """Read from a terminal until it has said something."""
    said = ""
    while text not in said:
        assert select.select([master], [], [], 10 * wait.PATIENCE)[0], f"the terminal said {said!r}, and not {text!r}"
        said += os.read(master, 100).decode()


@CHECKPOINT
def test_file_locks(saving: Saving) -> None:
    """A held lock cannot be saved; with --file-locks it can, and is held again."""
    saving.start("exec 9<>/shared/lock; echo ready >/shared/ready; " + IDLE)
    saving.until_written("ready", "ready")
    _lock_for(saving.case.pid(saving.name), 9)
    assert _locked(saving.shared / "lock")
    saving.refused()
    saving.save("--file-locks")
    assert not _locked(saving.shared / "lock")
    saving.restore("--file-locks")
    assert _locked(saving.shared / "lock")


def _lock_for(pid: int, number: int) -> None:
    """Lock an open file of another process, which holds the lock from then on (flock(2), pidfd_getfd(2))."""
    process = os.pidfd_open(pid)
    copy = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, process, number, 0)
    os.close(process)
    assert copy >= 0, os.strerror(ctypes.get_errno())
    fcntl.flock(copy, fcntl.LOCK_EX)
    os.close(copy)


def _locked(path: Path) -> bool:
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@CHECKPOINT
def test_link_remap(saving: Saving) -> None:
    """An open file whose name is gone, but not the file, cannot be saved; with --link-remap it can."""
    script = "exec 9>/shared/a; echo one >&9; ln /shared/a /shared/b; rm /shared/a; echo ready >/shared/ready; "
    saving.start(script + "while ! test -e /shared/go; do sleep 0.03; done; echo two >&9; echo done >/shared/done; " + IDLE)
    saving.until_written("ready", "ready")
    saving.refused()
    saving.save("--link-remap")
    saving.restore()
    (saving.shared / "go").touch()
    saving.until_written("done", "done")
    assert saving.text("b") == "one\ntwo"
    assert sorted(os.listdir(saving.shared)) == ["b", "done", "go", "ready"]


@CHECKPOINT
def test_unlinked_file(saving: Saving) -> None:
    """An open file that is gone is saved with its content."""
    script = "exec 9<>/shared/a; echo one >&9; exec 8</shared/a; rm /shared/a; echo ready >/shared/ready; "
    saving.start(script + "while ! test -e /shared/go; do sleep 0.03; done; cat <&8 >/shared/found; " + IDLE)
    saving.until_written("ready", "ready")
    saving.save()
    saving.restore()
    (saving.shared / "go").touch()
    saving.until_written("found", "one")


@CHECKPOINT
def test_auto_dedup(saving: Saving) -> None:
    """`restore --auto-dedup` takes out of the images what it has read of them."""
    saving.start()
    saving.counts()
    saving.save()
    pages = saving.images / "pages-1.img"
    before = pages.stat().st_blocks
    assert before > 0
    saving.restore("--auto-dedup")
    saving.counts()
    assert pages.stat().st_blocks < before


@CHECKPOINT
def test_page_server(saving: Saving) -> None:
    """With --page-server the memory goes to a server, and the rest into the images."""
    served = saving.case.bundle / "served"
    served.mkdir()
    saving.start()
    saving.counts()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [criu.program(), "page-server", "-D", str(served), "--port", str(port), "--address", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        wait.ours.add(server.pid)
        try:
            wait.wait_for(lambda: f":{port:04X} 00000000:0000 0A" in host.read("/proc/net/tcp"), "the page server to listen")
            saving.save("--page-server", f"127.0.0.1:{port}")
            assert server.wait(timeout=20 * wait.PATIENCE) == 0
        finally:
            server.kill()
    wait.ours.discard(server.pid)
    assert sum(path.stat().st_size for path in served.glob("pages-*.img")) > 0
    assert not list(saving.images.glob("pages-*.img"))
    for path in served.iterdir():
        path.rename(saving.images / path.name)
    saving.restore()
    saving.counts()


@CHECKPOINT
def test_empty_ns(saving: Saving) -> None:
    """A network namespace of the container's own comes back without its devices; other kinds cannot be left out."""
    saving.start()
    saving.counts()
    saving.refused("--empty-ns", "uts")
    saving.save("--empty-ns", "network")
    saving.restore("--empty-ns", "network")
    saving.counts()


@CHECKPOINT
def test_config_annotation(saving: Saving) -> None:
    """The annotation org.criu.config names a file with more options for criu."""
    place = saving.case.bundle / "criu.conf"
    saving.case.config["annotations"] = {"org.criu.config": str(place)}
    place.write_text("file-locks\n")
    saving.start("exec 9<>/shared/lock; echo ready >/shared/ready; " + IDLE)
    saving.until_written("ready", "ready")
    _lock_for(saving.case.pid(saving.name), 9)
    saving.save()
    saving.restore()
    assert _locked(saving.shared / "lock")
