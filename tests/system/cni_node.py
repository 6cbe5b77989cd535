"""A node for CNI: one network on a bridge of its own, pods that are bare network namespaces, servers and clients in them.

The client runs in a forked child each time, as it does in the daemon: it enters namespaces and keeps sockets for good.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from cni import conflist
from cni.client import Attachment, Client
from cni.netns import Namespace
from tests.support.tools import MissingToolError, find_cni_plugins, find_tool, in_ci
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cni.conflist import NetworkList
    from cni.types import Result

T = TypeVar("T")
SUBNETS = ("10.231.0.0/24", "fd23:1::/64")
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


def in_child(function: Callable[[], T]) -> T:
    """Run `function` in a forked child and give its result or raise its exception here."""
    receiver, sender = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(receiver)
        try:
            answer: tuple[bool, Any] = (True, function())
        except BaseException as fault:  # noqa: BLE001 - everything goes to the parent
            answer = (False, (_portable(fault), getattr(fault, "__notes__", [])))
        with open(sender, "wb") as stream:
            stream.write(pickle.dumps(answer))
        os._exit(0)
    os.close(sender)
    with open(receiver, "rb") as stream:
        good, value = pickle.loads(stream.read())
    os.waitpid(pid, 0)
    if good:
        return value
    fault, notes = value
    for note in notes:
        fault.add_note(note)
    raise fault


class NetworkError(Exception):
    """A fault of the client as it came out of the child."""


def _portable(fault: BaseException) -> NetworkError:
    return NetworkError(f"{type(fault).__name__}: {fault}")


class Node:
    """One network and everything the tests make in it. `kind` is bundled, installed (as programs) or debian."""

    def __init__(self, folder: Path, kind: str, subnets: Sequence[str] = SUBNETS) -> None:
        self.folder = folder
        self.kind = kind
        self.bridge = f"wtbr{secrets.token_hex(3)}"
        self.pods: list[str] = []
        self._servers: list[int] = []
        bins: list[str] = []
        if kind == "debian":
            bins = [find_cni_plugins()]
        elif kind == "installed":
            bins = [str(folder / "plugins")]
            subprocess.run([str(Path(sys.executable).parent / "wherry-cni"), "install", bins[0]], check=True)
        self.bins = bins
        self.client = Client("", bins, str(folder / "cache"), prefer_embedded=kind == "bundled", timeout=20)
        self.network = self.make(subnets)

    def make(self, subnets: Sequence[str] = SUBNETS, *, masquerade: bool = True) -> NetworkList:
        """Give a network on the node's bridge."""
        network = self.client.default_network(subnets, name=self.bridge, bridge=self.bridge, data_dir=str(self.folder / "ipam"))
        document = network.to_json()
        document["plugins"][0]["ipMasq"] = masquerade
        return conflist.parse(document)

    def pod(self) -> str:
        """Make a namespace and give its name."""
        name = f"wherry-test-{secrets.token_hex(4)}"
        subprocess.run([find_tool("ip"), "netns", "add", name], check=True)
        self.pods.append(name)
        return name

    def remove_pod(self, name: str) -> None:
        """Remove a namespace."""
        subprocess.run([find_tool("ip"), "netns", "del", name], check=True)
        self.pods.remove(name)

    def attachment(self, pod: str, ports: Iterable[dict[str, Any]] = (), **fields: Any) -> Attachment:
        """Give the attachment of a pod, named like it."""
        capabilities = {"portMappings": list(ports)} if ports else {}
        given = {"container_id": pod, "netns": f"/run/netns/{pod}", "capabilities": capabilities} | fields
        return Attachment(**given)

    def add(self, pod: str, ports: Iterable[dict[str, Any]] = (), network: NetworkList | None = None) -> Result:
        """Attach a pod."""
        return in_child(lambda: self.client.add(network or self.network, self.attachment(pod, ports)))

    def delete(self, pod: str, **fields: Any) -> None:
        """Detach a pod."""
        in_child(lambda: self.client.delete(self.network, self.attachment(pod, **fields)))

    def check(self, pod: str) -> None:
        """Check a pod."""
        in_child(lambda: self.client.check(self.network, self.attachment(pod)))

    def ip(self, *arguments: str, pod: str = "") -> str:
        """Run ip(8) on the host or in a pod."""
        where = ["-n", pod] if pod else []
        return subprocess.run([find_tool("ip"), *where, *arguments], check=True, capture_output=True, text=True).stdout

    def serve(self, pod: str, port: int, answer: str, kind: int = TCP) -> None:
        """Answer every connection or datagram in `pod`, both families, with `answer` and who asked, until the test ends."""
        ready, done = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                with Namespace(f"/run/netns/{pod}") as namespace, namespace.entered():
                    _serve(port, answer, kind, done)
            finally:
                os._exit(1)
        self._servers.append(pid)
        os.close(done)
        with open(ready, "rb") as stream:
            assert stream.read(1) == b"!", "server did not start"

    def ask(self, address: str, port: int, pod: str = "", kind: int = TCP) -> str:
        """Ask a server from the host or from a pod; "" when there is no answer within a second."""

        def question() -> str:
            with contextlib.ExitStack() as stack:
                if pod:
                    namespace = stack.enter_context(Namespace(f"/run/netns/{pod}"))
                    stack.enter_context(namespace.entered())
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                try:
                    with socket.socket(family, kind) as connection:
                        connection.settimeout(1)
                        connection.connect((address, port))
                        connection.send(b"?")
                        return connection.recv(200).decode()
                except OSError:
                    return ""

        return in_child(question)

    def answers(self, address: str, port: int, pod: str = "", kind: int = TCP) -> str:
        """Ask until there is an answer; Debian's plugins leave IPv6 addresses tentative for a while, ours must not."""
        if self.kind != "debian":
            return self.ask(address, port, pod, kind)
        return wait_for(lambda: self.ask(address, port, pod, kind), f"an answer from {address} port {port}", seconds=5)

    def left(self) -> dict[str, list[str]]:
        """Give what of the pods is still there: reserved addresses, remembered results, ports of the bridge."""
        reserved = self.folder / "ipam" / self.bridge
        results = self.folder / "cache" / "results"
        ports = Path(f"/sys/class/net/{self.bridge}/brif")
        found = {
            "addresses": [name for name in _names(reserved) if name != "lock" and not name.startswith("last_reserved_ip")],
            "results": _names(results),
            "ports": _names(ports),
        }
        return {kind: names for kind, names in found.items() if names}

    def close(self) -> None:
        """Remove everything, however the test ended."""
        for pid in self._servers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for pod in list(self.pods):
            with contextlib.suppress(NetworkError):
                self.delete(pod)
            self.remove_pod(pod)
        if os.path.exists(f"/sys/class/net/{self.bridge}"):
            self.ip("link", "del", self.bridge)


@contextlib.contextmanager
def open_node(folder: Path, kind: str) -> Iterator[Node]:
    """Give a node that is closed afterwards; skip (in CI fail) when its plugins are not installed."""
    try:
        made = Node(folder, kind)
    except MissingToolError as error:
        if in_ci():
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    with contextlib.closing(made):
        yield made


def _names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


def _serve(port: int, answer: str, kind: int, done: int) -> None:
    with socket.socket(socket.AF_INET6, kind) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", port))
        if kind == TCP:
            server.listen(16)
        os.write(done, b"!")
        for sender, connection in _questions(server, kind):
            said = f"{answer} to {sender.removeprefix('::ffff:')}".encode()
            if connection is None:
                continue
            with contextlib.suppress(OSError):
                connection(said)


def _questions(server: socket.socket, kind: int) -> Iterator[tuple[str, Callable[[bytes], Any] | None]]:
    while True:
        if kind == TCP:
            connection, sender = server.accept()
            with connection:
                connection.settimeout(1)
                with contextlib.suppress(OSError):
                    connection.recv(1)
                yield sender[0], connection.send
        else:
            _data, sender = server.recvfrom(100)
            yield sender[0], lambda said, sender=sender: server.sendto(said, sender)
