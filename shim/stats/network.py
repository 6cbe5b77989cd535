"""Counters of a pod's network interfaces.

The calling thread enters the namespace by its pin and reads /proc/thread-self/net/dev: threads have network namespaces of
their own (setns(2)), so the daemon's other threads stay where they are. No process of the pod is needed, and none can be
mistaken for another one whose number it got. The thread always comes back: a namespace lives as long as a thread is in it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runtime.kernel.namespace import CLONE_NEWNET, setns
from shim.stats import parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shim.stats.values import Interface

HOME = "/proc/self/ns/net"
"""The namespace of the daemon's first thread, which never leaves it."""
DEVICES = "/proc/thread-self/net/dev"
READ = 1 << 20


def read_interfaces(pins: Iterable[str]) -> Mapping[str, tuple[Interface, ...]]:
    """Give the interfaces of each namespace, by its pin; one that is gone is left out.

    For a thread that does nothing else meanwhile. Raises OSError when it cannot come back.
    """
    found = {}
    home = os.open(HOME, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for pin in pins:
            interfaces = _enter_and_read(pin)
            if interfaces is not None:
                found[pin] = interfaces
    finally:
        try:
            setns(home, CLONE_NEWNET)
        finally:
            os.close(home)
    return found


def _enter_and_read(pin: str) -> tuple[Interface, ...] | None:
    try:
        fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        setns(fd, CLONE_NEWNET, path=pin)
    except OSError:
        return None
    finally:
        os.close(fd)
    with open(DEVICES, "rb", buffering=0) as file:
        return parse.net_dev(file.read(READ) or b"")
