"""The interactive commands of `wherry`, as processes of their own, on pipes and on a terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.daemon import BUSYBOX
from tests.support.streaming import run_container

if TYPE_CHECKING:
    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

WHERRY = str(Path(sys.executable).parent / "wherry")


def wherry(wherryd: Wherryd, *words: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command with `text` as its input."""
    arguments = [WHERRY, "--address", wherryd.address, *words]
    return subprocess.run(arguments, input=text, capture_output=True, timeout=30, check=False)


def on_terminal(wherryd: Wherryd, keys: bytes, *words: str) -> tuple[int, bytes]:
    """Run a command that starts a shell on a terminal, type `keys` at its prompt, give the exit code and what was shown."""
    pid, master = pty.fork()
    if pid == 0:
        os.execv(WHERRY, [WHERRY, "--address", wherryd.address, *words])
    shown, typed = b"", False
    try:
        while True:
            shown += os.read(master, 4096)
            if not typed and b"# " in shown:
                typed = True
                os.write(master, keys)
    except OSError:  # the last user of the terminal has closed it
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown
    finally:
        os.close(master)


def run(wherryd: Wherryd, *words: str) -> list[str]:
    return ["run", "--log-dir", str(wherryd.logs), "--pull", "never", *words]


def test_run_with_input(wherryd: Wherryd) -> None:
    words = run(wherryd, "--rm", "-i", BUSYBOX, "sh", "-c", "cat; echo err >&2; exit 3")
    done = wherry(wherryd, *words, text=b"words\n")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"words\n", b"err\n")
    assert wherryd.cri.pods() == []


def test_exec_with_and_without_input(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container = run_container(wherryd, pods)
    done = wherry(wherryd, "exec", container, "sh", "-c", "echo out; echo err >&2; exit 9")
    assert (done.returncode, done.stdout, done.stderr) == (9, b"out\n", b"err\n")
    done = wherry(wherryd, "exec", "-i", container, "wc", "-c", text=bytes(3_000_000))
    assert (done.returncode, done.stdout) == (0, b"3000000\n")
    done = wherry(wherryd, "exec", container, "nosuchprogram")
    assert done.returncode == 1
    assert b"nosuchprogram" in done.stderr


def test_exec_on_a_terminal(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container = run_container(wherryd, pods)
    code, shown = on_terminal(wherryd, b"tty; exit 7\n", "exec", "-it", container, "sh")
    assert code == 7
    assert b"/dev/pts/" in shown


def test_run_on_a_terminal_and_detach(wherryd: Wherryd) -> None:
    code, shown = on_terminal(wherryd, b"exit 6\n", *run(wherryd, "--rm", "-it", BUSYBOX, "sh"))
    assert code == 6, shown
    code, shown = on_terminal(wherryd, b"\x10\x11", *run(wherryd, "-it", "--name", "kept", BUSYBOX, "sh"))
    assert code == 0
    assert b"detached; kept goes on" in shown
    assert [container.state for container in wherryd.cri.containers()].count(api_pb2.CONTAINER_RUNNING) == 1


def test_attach_on_pipes(wherryd: Wherryd, pods: PodMaker) -> None:
    _pod, container = run_container(wherryd, pods, "cat", stdin=True)
    done = wherry(wherryd, "attach", container, text=b"hello\n")
    assert (done.returncode, done.stdout) == (0, b"hello\n")


def test_port_forward(wherryd: Wherryd, pods: PodMaker) -> None:
    line = "echo welcome > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
    pod, _container = run_container(wherryd, pods, "sh", "-c", line)
    arguments = [WHERRY, "--address", wherryd.address, "port-forward", pod, ":80"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as forward:
        assert forward.stdout is not None
        said = re.fullmatch(rb"Forwarding from 127\.0\.0\.1:(\d+) -> 80\n", forward.stdout.readline())
        assert said is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{int(said[1])}/", timeout=10) as answer:
            assert answer.read() == b"welcome\n"
        forward.send_signal(signal.SIGINT)
        assert forward.wait(10) == 0
