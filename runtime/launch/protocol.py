"""What the processes of a create say to each other: every message and every phase, in order.

    creator                                                         init
      │ ── fork, inside the PID and time namespaces ─────────────────▶│ joins the cgroup; joins and
      │ saves the state with init's id                                │ makes the other namespaces
      │ ── GO ───────────────────────────────────────────────────────▶│
      │ ◀─────────────────────────────────────────────────── NETWORK ─│ only with linux.netDevices
      │ ── MOVED ────────────────────────────────────────────────────▶│ mounts
      │ applies resources, compiles the seccomp filter
      │ ◀────────────────────────────────────────────── SOURCE index ─│ for a source among its own mounts it may not clone
      │ ── CLONED descriptor ────────────────────────────────────────▶│
      │ ◀─────────────────────────────────────────────────── MOUNTED ─│ only with hooks of the runtime's side
      │ prestart and createRuntime hooks
      │ ── HOOKED ───────────────────────────────────────────────────▶│ createContainer hooks, enters the root
      │ ◀─────────────────────────────────────────────────── CONFINE ─│
      │ limits, device rules
      │ ── CONFINED filter ──────────────────────────────────────────▶│ ids, capabilities
      │ ◀───────────────────────────────────────────────────── READY ─│ waits at the gate
      ✕ the link closes; what follows is said at the gate (runtime.launch.gate)

A user namespace wants one more process, for what happens before GO:

    creator                         stage1                          init
      │ ── fork ─────────────────────▶│
      │ ◀───────────────────── PLACE ─│ only where a user's systemd has to put it into the cgroup
      │ ── PLACED ───────────────────▶│ joins the cgroup, enters the
      │                               │ user namespace, joins and makes the others
      │ ◀───────────────────── MAP ── │ only when it is a new one
      │ writes the maps, offsets
      │ ── MAPPED ───────────────────▶│
      │                               │ ── fork ─────────────────────▶│
      │ ◀─────────────── CHILD pid ── │ ends
      │ saves the state with init's id
      │ ── GO ───────────────────────────────────────────────────────▶│ and so on, as above

Any of them may send FAULT (a runtime.errors value) and end. The link is one SEQPACKET socket; its end means that the other
side died: init then ends by itself at any phase before READY, so a killed creator leaves nothing that runs. stage1 shares its
end with the init it forked, so its creator watches the process too until CHILD (runtime.launch.staging).

With a seccomp listener, LISTENER number comes before READY, or, where the filter would be in the way of the wait, after GO at
the gate; in the link of an exec before execve(2). TAKEN answers it once the agent has the descriptor.

An exec has a stage1 that joins the cgroup itself; PLACE, CHILD, GO and CONFINE have the same meaning, MOUNTED is not said, and
instead of READY the link simply closes when execve(2) succeeds.
"""

from __future__ import annotations

import _socket
import os
import sys

from runtime.errors import ProtocolFault, RuntimeFault, from_value
from runtime.jsonlite import dumps, loads

PLACE = b"place"
PLACED = b"placed"
MAP = b"map"
MAPPED = b"mapped"
CHILD = b"child"
GO = b"go"
NETWORK = b"network"
MOVED = b"moved"
SOURCE = b"source"
CLONED = b"cloned"
MOUNTED = b"mounted"
HOOKED = b"hooked"
CONFINE = b"confine"
CONFINED = b"confined"
READY = b"ready"
LISTENER = b"listener"
TAKEN = b"taken"
FAULT = b"fault"

_LIMIT = 160 * 1024
"""Bytes of a message; a seccomp filter has at most 32 KiB (BPF_MAXINSNS)."""


_RESETS = 4
"""Tries to read past the error that a peer's end leaves in front of its last message (unix(7): ECONNRESET)."""


class Link:
    """One end of the conversation."""

    __slots__ = ("peer", "socket")

    def __init__(self, socket: _socket.socket, peer: str) -> None:
        self.socket = socket
        self.peer = peer

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Say one message; raise ProtocolFault when the other side is gone."""
        try:
            self.socket.send(kind + b"\0" + payload, _socket.MSG_NOSIGNAL)
        except OSError as error:
            self._raise_last_words()
            raise ProtocolFault(f"{self.peer} is gone", step=f"say {kind.decode()}", errno=error.errno) from error

    def _raise_last_words(self) -> None:
        """Raise the fault a peer that is gone sent before it went, when there is one."""
        for _ in range(_RESETS):
            try:
                message = self.socket.recv(_LIMIT, _socket.MSG_DONTWAIT)
            except ConnectionResetError:
                continue
            except OSError:
                return
            kind, _, payload = message.partition(b"\0")
            if kind == FAULT:
                raise from_value(loads(payload))
            if not kind:
                return

    def send_fault(self, fault: RuntimeFault) -> None:
        """Say that this side failed; a peer that is gone does not matter any more."""
        try:
            self.send(FAULT, dumps(fault.to_value()).encode("utf-8", "surrogateescape"))
        except ProtocolFault:
            return

    def receive(self, *expected: bytes) -> tuple[bytes, bytes]:
        """Wait for one of `expected` and give it with its payload; raise the fault the other side sent, or ProtocolFault."""
        kind, payload = self.receive_any()
        if kind == b"":
            raise ProtocolFault(f"{self.peer} ended while {expected[0].decode()!r} was awaited", step="wait for a message")
        if kind not in expected:
            raise ProtocolFault(f"{self.peer} said {kind!r} when {expected!r} was awaited", step="wait for a message")
        return kind, payload

    def receive_any(self) -> tuple[bytes, bytes]:
        """Wait for any message; two empty values at the end; raise the fault the other side sent.

        An end with something unread is no good one: ProtocolFault.
        """
        message, unread = b"", False
        for _ in range(_RESETS):
            try:
                message = self.socket.recv(_LIMIT)
                break
            except ConnectionResetError:
                unread = True  # what the peer said before is still to come
        if unread and not message:
            raise ProtocolFault(f"{self.peer} ended before it heard what it was told", step="wait for a message")
        kind, _, payload = message.partition(b"\0")
        if kind == FAULT:
            raise from_value(loads(payload))
        return kind, payload

    def send_fd(self, kind: bytes, fd: int) -> None:
        """Say one message with a descriptor; raise ProtocolFault when the other side is gone."""
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))]
        try:
            self.socket.sendmsg([kind + b"\0"], rights, _socket.MSG_NOSIGNAL)
        except OSError as error:
            raise ProtocolFault(f"{self.peer} is gone", step=f"say {kind.decode()}", errno=error.errno) from error

    def receive_fd(self, expected: bytes) -> int:
        """Wait for a message with a descriptor and give that, close-on-exec; raise the fault the other side sent."""
        message, ancillary, _, _ = self.socket.recvmsg(_LIMIT, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
        kind, _, payload = message.partition(b"\0")
        if kind == FAULT:
            raise from_value(loads(payload))
        if kind != expected or not ancillary:
            raise ProtocolFault(f"{self.peer} said {kind!r} when {expected!r} was awaited", step="wait for a message")
        return int.from_bytes(ancillary[0][2][:4], sys.byteorder)

    def hand_over_number(self, fd: int) -> None:
        """Name a descriptor for the peer to take, and wait until it has; raise ProtocolFault when it is gone.

        Only write(2) and read(2) are called: a seccomp filter is in place already, and who answers for other calls is not.
        """
        try:
            os.write(self.socket.fileno(), LISTENER + b"\0" + str(fd).encode())
            answer = os.read(self.socket.fileno(), 64)
        except OSError as error:
            raise ProtocolFault(f"{self.peer} is gone", step="hand the seccomp listener over", errno=error.errno) from error
        if answer != TAKEN + b"\0":
            raise ProtocolFault(f"{self.peer} did not take it", step="hand the seccomp listener over")

    def close(self) -> None:
        """End the conversation."""
        self.socket.close()


def make_links() -> tuple[Link, Link]:
    """Give the creator's end and the end stage1 and init share."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    return Link(ours, "init"), Link(theirs, "the creator")
