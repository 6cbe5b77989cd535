"""The other side of the sockets over which runtimes send descriptors: terminals, processes, seccomp filters."""

from __future__ import annotations

import array
import fcntl
import json
import select
import socket
import struct
from typing import TYPE_CHECKING, Any

from conformance.oci.support.wait import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 10 * PATIENCE
RECEIVE = 0xC0502100
"""SECCOMP_IOCTL_NOTIF_RECV with the 80 bytes of struct seccomp_notif."""
SEND = 0xC0182101
"""SECCOMP_IOCTL_NOTIF_SEND with the 24 bytes of struct seccomp_notif_resp."""


def receive_descriptors(connection: socket.socket, most: int = 8) -> tuple[bytes, list[int]]:
    """Read one message and the descriptors that came with it."""
    data, control, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(most * 4))
    found = array.array("i")
    for level, kind, text in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(text[: len(text) - len(text) % found.itemsize])
    return data, list(found)


class Listener:
    """A listening unix socket; one connection at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()
        self.server.settimeout(SECONDS)

    def accept(self) -> socket.socket:
        """Wait for a connection."""
        connection, _ = self.server.accept()
        connection.settimeout(SECONDS)
        return connection

    def descriptor(self) -> int:
        """Wait for one descriptor (a terminal, or a process)."""
        with self.accept() as connection:
            _, found = receive_descriptors(connection)
        assert len(found) == 1, f"{len(found)} descriptors came"
        return found[0]

    def close(self) -> None:
        """Stop listening."""
        self.server.close()


class Agent(Listener):
    """Who is asked by filters."""

    def receive(self) -> tuple[dict[str, Any], list[int]]:
        """Wait for a container process state: the document, and the descriptors."""
        with self.accept() as connection:
            data, descriptors = receive_descriptors(connection)
            while chunk := connection.recv(1 << 16):
                data += chunk
        document: dict[str, Any] = json.loads(data)
        return document, descriptors


def answer_one(descriptor: int, code: int) -> None:
    """Wait for one call and let it fail with an error."""
    ready, _, _ = select.select([descriptor], [], [], SECONDS)
    assert ready, "no system call was reported"
    request = bytearray(80)
    fcntl.ioctl(descriptor, RECEIVE, request)
    (identity,) = struct.unpack_from("=Q", request)
    response = bytearray(struct.pack("=QqiI", identity, 0, -code, 0))
    fcntl.ioctl(descriptor, SEND, response)
