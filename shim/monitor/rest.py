"""How a monitor goes to rest: what it hands to the keeper (keeper.py), when, and how the next one takes it over."""

from __future__ import annotations

import array
import os
import socket
from select import EPOLLIN

from runtime import jsonlite
from shim.monitor.container import Container
from shim.monitor.keeper import FDS_LIMIT, MESSAGE_LIMIT
from shim.monitor.protocol import ContainerCreate, PodNamespaces, decode, encode
from shim.reactor import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shim.monitor.keeper import Rest
    from shim.monitor.server import Monitor

PATIENCE = 2.0
"""Seconds without work, once or twice as many, after which a monitor goes to rest."""
LONGEST_PATIENCE = 64.0
"""What becomes of it, doubled each time, for a pod that is never left alone for so long: to wake takes a fork and a few
milliseconds, which a pod with a probe by exec every ten seconds need not pay for each."""


class Luggage:
    """Descriptors on their way to the keeper, with what it is to watch for, and the children it is to wait for."""

    def __init__(self) -> None:
        self.fds: list[int] = []
        self.events: list[int] = []
        self.children: list[int] = []
        self.outputs: list[str] = []

    def add(self, fd: int, events: int = 0) -> int:
        """Take a descriptor and give its number in the state; -1 for none."""
        if fd < 0:
            return -1
        self.fds.append(fd)
        self.events.append(events)
        return len(self.fds) - 1

    def add_output(self, fd: int, name: str, log: int) -> int:
        """Take the reading end of a container's output, which goes to the log of that number, or nowhere (-1)."""
        number = self.add(fd, EPOLLIN)
        if number >= 0:
            self.outputs.append(f"{name}:{number}:{log}")
        return number

    def pack(self, patience: float, state: dict[str, Any]) -> bytes:
        """Give the message: a line for the keeper, and the state, which it hands on."""
        pids, events = (" ".join(map(str, numbers)) for numbers in (self.children, self.events))
        return f"{patience};{pids};{events};{' '.join(self.outputs)}\n{jsonlite.dumps(state)}".encode()


class Bed:
    """A monitor's link to its keeper, and its way to rest."""

    def __init__(self, monitor: Monitor, link: socket.socket, patience: float) -> None:
        self._monitor = monitor
        self._link = link
        self._patience = patience
        self._seen = -1
        self._rests = False
        monitor.reactor.watch(link.fileno(), READ, self._told)
        monitor.reactor.at(patience, self._look)

    def _told(self, _events: int) -> None:
        """Learn of the end of a child of an earlier monitor, for which the keeper has waited."""
        data = self._link.recv(64)
        if not data:
            os._exit(1)  # the keeper has died, and the kernel is about to kill us
        pid, status = data.split()
        self._monitor.reactor.children.tell(int(pid), int(status))

    def _look(self) -> None:
        """Go to rest when nothing has happened since the last look and nothing is under way."""
        self._rests = self._monitor.activity == self._seen and self._rest()
        if self._rests:
            self._monitor.reactor.stop()
            return
        self._seen = self._monitor.activity
        self._monitor.reactor.at(self._patience, self._look)

    def leave(self) -> None:
        """Return when this process may end: at once to rest, for good after the keeper, so that clients see the end of both."""
        if not self._rests:
            self._link.shutdown(socket.SHUT_WR)
            while self._link.recv(64):
                pass

    def _rest(self) -> bool:
        """Hand everything to the keeper; False when something is under way or there is too much of it."""
        monitor, luggage = self._monitor, Luggage()
        state = pack_up(monitor, luggage)
        own = {self._link.fileno(), monitor.listener.fileno()}
        if state is None or not monitor.reactor.awaits_only({*luggage.fds, *own}, luggage.children):
            return False
        message = luggage.pack(self._patience, state)
        if len(message) > MESSAGE_LIMIT or len(luggage.fds) > FDS_LIMIT:
            return False
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", luggage.fds))] if luggage.fds else []
        try:
            self._link.sendmsg([message], rights)
        except OSError:
            return False
        return True


def pack_up(monitor: Monitor, luggage: Luggage) -> dict[str, Any] | None:
    """Give the state of a monitor, its descriptors to `luggage`; None while something is under way."""
    sessions = [session.rest(luggage) for session in monitor.sessions]
    containers = [container.rest(luggage) for container in monitor.containers.values()]
    if None in sessions or None in containers or not monitor.streamed.idle:
        return None
    return {
        "namespaces": encode(monitor.namespaces),
        "home": list(monitor.home),
        "counts": [monitor.execs.count, monitor.streamed.count],
        "sessions": sessions,
        "containers": containers,
    }


def unpack(monitor: Monitor, rest: Rest) -> float:
    """Make a monitor what the one was that left `rest`; give its patience."""
    state = jsonlite.loads(rest.state)
    if state["namespaces"] is not None:
        monitor.namespaces = decode(PodNamespaces, state["namespaces"])
    monitor.home = tuple(state["home"])
    monitor.execs.count, monitor.streamed.count = state["counts"]
    for index, greeted in state["sessions"]:
        session = monitor.admit(socket.socket(fileno=rest.fd(index)))
        session.greeted = greeted
    for left in state["containers"]:
        order = decode(ContainerCreate, left["request"])
        container = monitor.containers[order.container_id] = Container(monitor.around, monitor.runtime_for(order), order)
        container.wake(left, rest)
    for pid, status in rest.ended.items():
        monitor.reactor.children.tell(pid, status)
    return min(LONGEST_PATIENCE, 2 * rest.patience) if rest.slept() < LONGEST_PATIENCE else PATIENCE
