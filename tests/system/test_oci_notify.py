"""seccomp's user notification: an agent outside the container answers for its system calls."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import json
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.oci_node import Oci

pytestmark = pytest.mark.system

RECEIVE, SEND = 0xC0502100, 0xC0182101
"""SECCOMP_IOCTL_NOTIF_RECV and _SEND for struct seccomp_notif (80 bytes) and seccomp_notif_resp (24)."""
CONTINUE = 1


class Agent:
    """Takes listeners on a socket and answers every call with an error, or lets it go on."""

    def __init__(self, path: str, error: int) -> None:
        self.path = path
        self.error = error
        self.states: list[dict[str, Any]] = []
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(path)
        self._listening.listen(8)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                message, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(4))
            self.states.append(json.loads(message))
            listener = array.array("i", ancillary[0][2])[0]
            self._threads.append(threading.Thread(target=self._answer, args=(listener,)))
            self._threads[-1].start()

    def _answer(self, listener: int) -> None:
        with contextlib.suppress(OSError):  # ENOENT: nobody is left that could call
            while True:
                order = bytearray(80)
                fcntl.ioctl(listener, RECEIVE, order)
                number = struct.unpack_from("Q", order)[0]
                flags = 0 if self.error else CONTINUE
                with contextlib.suppress(FileNotFoundError):  # the caller was killed meanwhile
                    fcntl.ioctl(listener, SEND, struct.pack("QqiI", number, 0, -self.error, flags))
        os.close(listener)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()


@contextlib.contextmanager
def agent(ours: Oci, *calls: str, error: int = errno.ENOMEDIUM) -> Iterator[Agent]:
    path = str(ours.bundle / "agent.sock")
    answering = Agent(path, error)
    ours.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "listenerMetadata": "seen",
        "syscalls": [{"names": list(calls), "action": "SCMP_ACT_NOTIFY"}],
    }
    try:
        yield answering
    finally:
        for name in ours.ids:
            ours.call("delete", "--force", name)
        answering.close()


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_the_agent_answers_for_the_container(ours: Oci, no_new_privileges: bool) -> None:
    ours.config["process"]["noNewPrivileges"] = no_new_privileges
    with agent(ours, "mkdir", "mkdirat") as answering:
        done = ours.run("mkdir", "/tmp/x")
        assert done.returncode == 1
        assert "No medium found" in done.stderr
        (message,) = answering.states
    assert message["fds"] == ["seccompFd"]
    assert message["metadata"] == "seen"
    assert message["state"]["id"] == ours.ids[0]
    assert message["state"]["status"] == "creating"
    assert message["pid"] == message["state"]["pid"] > 0


def test_an_exec_has_a_listener_of_its_own(ours: Oci) -> None:
    with agent(ours, "mkdir", "mkdirat") as answering:
        name = ours.start("sleep", "60")
        done = ours.call("exec", name, "mkdir", "/tmp/x")
        assert "No medium found" in done.stderr
        first, second = answering.states
    assert second["pid"] != first["pid"] == second["state"]["pid"]
    assert second["state"]["status"] == "running"


def test_calls_of_the_way_to_the_program_may_be_notified(ours: Oci) -> None:
    with agent(ours, "execve", "openat", "read", "close", "fcntl", error=0):
        assert ours.run("true").returncode == 0


def test_no_agent_no_container(ours: Oci) -> None:
    with agent(ours, "mkdir"):
        ours.config["linux"]["seccomp"]["listenerPath"] = "/nosuch/agent"
        done = ours.run("true")
    assert done.returncode == 1
    assert "failed to connect with seccomp agent" in done.stderr


def test_write_is_needed_to_hand_the_listener_over(ours: Oci) -> None:
    with agent(ours, "write"):
        done = ours.run("true")
    assert done.returncode == 1
    assert "SCMP_ACT_NOTIFY cannot be used for the write syscall" in done.stderr
