"""Sockets of a pod's network, made in a spawner job: wherryd itself never enters a namespace.

A socket belongs to the network namespace in which it was made and may be connected from anywhere afterwards, so the job has
nothing to wait for. Parameters: `netns`, the pin; `count`, how many of each family. The first descriptor is the
SOCK_SEQPACKET over which the sockets are sent, IPv4 and IPv6 in turn; a family the kernel has not got is left out.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from runtime.kernel.namespace import FLAGS, setns
from runtime.kernel.prctl import set_dumpable

if TYPE_CHECKING:
    from collections.abc import Callable


def run(params: dict[str, Any], fds: list[int], _report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Make the sockets and send them; raises OSError."""
    set_dumpable(dumpable=False)
    pin = os.open(params["netns"], os.O_RDONLY | os.O_CLOEXEC)
    setns(pin, FLAGS["network"], path=params["netns"])
    os.close(pin)
    made = []
    for _ in range(params["count"]):
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                made.append(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
            except OSError:
                if family == socket.AF_INET:
                    raise
    with socket.socket(fileno=fds[0]) as channel:
        socket.send_fds(channel, [b"s"], [one.fileno() for one in made])
    return {"sockets": len(made)}
