"""Counters of a pod's network interfaces.

The calling thread enters the namespace by its pin and reads /proc/thread-self/net/dev: threads have network namespaces of
their own (setns(2)), so the daemon's other threads stay where they are. No process of the pod is needed, and none can be
mistaken for another one whose number it got. The thread always comes back: a namespace lives as long as a thread is in it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from runtime.kernel.namespace import CLONE_NEWNET, setns
from shim.stats import parse
from shim.stats.sockets import sockets
from shim.stats.values import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import TypeVar

    from shim.stats.values import Interface, Sockets

    T = TypeVar("T")

HOME = "/proc/self/ns/net"
"""The namespace of the daemon's first thread, which never leaves it."""
FOLDER = "/proc/thread-self/net"
READ = 1 << 20
MOST = 16 << 20
"""Bytes of a list of sockets: a hundred thousand of them."""


def read_interfaces(pins: Iterable[str]) -> Mapping[str, tuple[Interface, ...]]:
    """Give the interfaces of each namespace, by its pin; one that is gone is left out.

    For a thread that does nothing else meanwhile. Raises OSError when it cannot come back.
    """
    return _visit(pins, _interfaces)


def read_networks(pins: Iterable[str], files: tuple[str, ...]) -> Mapping[str, Network]:
    """Give the same with what `files` below /proc/net tell of sockets."""
    return _visit(pins, lambda: Network(interfaces=_interfaces(), sockets=_sockets(files)))


def _visit(pins: Iterable[str], look: Callable[[], T]) -> Mapping[str, T]:
    found = {}
    home = os.open(HOME, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for pin in pins:
            if _enter(pin):
                found[pin] = look()
    finally:
        try:
            setns(home, CLONE_NEWNET)
        finally:
            os.close(home)
    return found


def _enter(pin: str) -> bool:
    try:
        fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        setns(fd, CLONE_NEWNET, path=pin)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _interfaces() -> tuple[Interface, ...]:
    with open(f"{FOLDER}/dev", "rb", buffering=0) as file:
        return parse.net_dev(file.read(READ) or b"")


def _sockets(names: tuple[str, ...]) -> Sockets | None:
    texts = {}
    for name in names:
        with suppress(OSError), open(f"{FOLDER}/{name}", "rb") as file:
            texts[name] = file.read(MOST)
    return sockets(texts) if names else None
