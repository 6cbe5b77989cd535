"""Kill whoever says or hears a message of runtime.launch.protocol, at that message, in a command of `wherry-oci`.

`python -m tests.system.oci_kills` reads an order (JSON) from standard input: a list of points, and for each the commands to
run one after the other. Every command runs in a fork of this process, which has imported the runtime once and is the subreaper
of all that comes of it: who is still a child of it at the end is an orphan.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from runtime.apply.cgroup import Cgroup
from runtime.cli.command import command_line
from runtime.errors import ProtocolFault, RuntimeFault
from runtime.kernel.prctl import set_child_subreaper
from runtime.launch import protocol, requests
from runtime.launch.protocol import Link

if TYPE_CHECKING:
    from collections.abc import Callable

SAY, HEAR = "say", "hear"
BEFORE, AFTER = "before", "after"
SPOTS = ((SAY, BEFORE), (SAY, AFTER), (HEAR, AFTER))
"""Where somebody is killed at each message: before it said it, once it said it, once it heard it."""
_SECONDS = 10.0
"""How long a command, and what it left, may take to end."""
HANGS = 1000
"""The exit code of a command that did not end."""

STAGED = ("place", "placed", "map", "mapped", "child")
"""What only stage1 says and hears, in order."""
INIT = ("go", "network", "moved", "mounted", "hooked", "confine", "confined", "listener", "taken", "ready")
CLONES = ("source", "cloned")
MESSAGES = {
    "create": (*INIT, "fault"),
    "create in a user namespace": (*STAGED, *INIT, *CLONES, "fault"),
    "run": (*STAGED, *INIT, *CLONES, "fault"),
    "exec": ("listener", "taken", "fault"),
    "exec in a user namespace": ("place", "placed", "child", "go", "confine", "confined", "listener", "taken", "fault"),
    "start": ("go", "listener", "taken", "fault"),
}
"""Every message each command takes, at least; a unit test holds it against the protocol."""

_fired = mmap.mmap(-1, 1)
"""Shared by every fork: whether somebody was killed."""


class Killer:
    """One point: who comes to it is killed."""

    def __init__(self, point: dict[str, Any]) -> None:
        self.side, self.when, self.kind = point["side"], point["when"], point["kind"].encode()
        self.left = point.get("nth", 1)

    def at(self, side: str, when: str, kind: bytes) -> None:
        """End this process, and let it run nothing more, if this is the point."""
        if (side, when, kind) != (self.side, self.when, self.kind):
            return
        self.left -= 1
        if self.left == 0:
            _fired[0] = 1
            os.kill(os.getpid(), signal.SIGKILL)
            ctypes.string_at(0)  # the first of a PID namespace is shielded from its own signals, but not from this


def _arm(killer: Killer) -> None:
    """Have every way to say and to hear a message pass the point."""

    def saying(real: Callable[..., Any]) -> Callable[..., Any]:
        def say(link: Link, kind: bytes, what: Any = b"") -> None:
            killer.at(SAY, BEFORE, kind)
            real(link, kind, what)
            killer.at(SAY, AFTER, kind)

        return say

    def hear(link: Link) -> tuple[bytes, bytes]:
        if link.peer == "the starter":
            killer.at(HEAR, BEFORE, protocol.GO)
        try:
            found = receive_any(link)
        except ProtocolFault:
            raise
        except RuntimeFault:
            killer.at(HEAR, AFTER, protocol.FAULT)
            raise
        killer.at(HEAR, AFTER, found[0])
        return found

    def hear_fd(link: Link, expected: bytes) -> int:
        found = receive_fd(link, expected)
        killer.at(HEAR, AFTER, expected)
        return found

    def hand_over(link: Link, number: int) -> None:
        killer.at(SAY, BEFORE, protocol.LISTENER)
        real_hand_over(link, number)
        killer.at(HEAR, AFTER, protocol.TAKEN)

    class Calls:
        """The two calls of hand_over_number."""

        read = staticmethod(os.read)

        @staticmethod
        def write(fd: int, message: bytes) -> None:
            os.write(fd, message)
            killer.at(SAY, AFTER, protocol.LISTENER)

    receive_any, receive_fd, real_hand_over = Link.receive_any, Link.receive_fd, Link.hand_over_number
    Link.send, Link.send_fd = saying(Link.send), saying(Link.send_fd)  # type: ignore[method-assign]  # the injection
    Link.receive_any, Link.receive_fd, Link.hand_over_number = hear, hear_fd, hand_over  # type: ignore[method-assign]  # as above
    protocol.os = Calls  # type: ignore[misc, assignment]  # as above


def _pretend() -> None:
    """Have PLACE said as where a user's systemd has to place: to nobody who is born in his cgroup, nor may enter it."""
    Cgroup.needs_placing = lambda _group: True  # type: ignore[method-assign]  # the injection
    Cgroup.open_unified = lambda _group: -1  # type: ignore[method-assign]  # the injection


def _command(point: dict[str, Any], words: list[str], killer: Killer | None = None) -> int:
    """Run one command to its end and give how it ended: its exit code, the negative of a signal, or HANGS."""
    pid = os.fork()
    if pid == 0:
        _be_command(point, words, killer)
    fd = os.pidfd_open(pid)
    if not select.select([fd], [], [], _SECONDS)[0]:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(fd)
        return HANGS
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _be_command(point: dict[str, Any], words: list[str], killer: Killer | None) -> NoReturn:
    code = 70
    try:
        out = os.open(point["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        null = os.open("/dev/null", os.O_RDONLY)
        for number, fd in ((0, null), (1, out), (2, out)):
            os.dup2(fd, number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        if point["places"]:
            _pretend()
        if killer is not None:
            _arm(killer)
        code = command_line(words)
        sys.stderr.flush()
    finally:
        os._exit(code)


def _orphans(seconds: float) -> int:
    """Reap what comes here; give how many are left after so long."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 0
        if pid == 0 and signal.sigtimedwait({signal.SIGCHLD}, max(0.0, deadline - time.monotonic())) is None:
            return len(_children())


def _children() -> list[str]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return file.read().split()


def _judge(point: dict[str, Any]) -> dict[str, Any]:
    """Run a point's commands, with the killer in those whose numbers are `armed`, and then `last`, without."""
    _fired[0] = 0
    killer = Killer(point)
    codes = []
    for number, words in enumerate(point["commands"]):
        codes.append(_command(point, words, killer if number in point["armed"] else None))
    answer = {"fired": bool(_fired[0]), "code": codes[-1], "said": _text(point["said"])}
    answer["left"] = len(_children()) if point["waits"] else _orphans(_SECONDS)
    answer["kept"] = os.path.exists(point["folder"])
    answer["last"] = _command(point, point["last"])
    answer["last_said"] = _text(point["said"])
    answer["left_at_last"] = _orphans(_SECONDS)
    return answer


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def main() -> None:
    """Read the order, judge every point, print what came of each."""
    order = json.load(sys.stdin)
    set_child_subreaper()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    requests.move_devices = lambda _devices, _pid: None  # the messages are what is asked for, not a device
    sys.stdout.write(json.dumps([_judge(point) for point in order]))


if __name__ == "__main__":
    main()
