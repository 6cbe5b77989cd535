"""A network namespace that plugins attach, and what can be seen and done in it. `Place("")` is the host."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.cni.support.world import run

if TYPE_CHECKING:
    from collections.abc import Iterator

PEER = str(Path(__file__).with_name("peer.py"))


class Place:
    """The host's network namespace, or one by name."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.path = f"/run/netns/{name}" if name else "/proc/self/ns/net"
        self._inside = ["ip", "netns", "exec", name] if name else []

    def run(self, *command: str) -> str:
        """Run a program here."""
        return run(*self._inside, *command)

    def ask_ip(self, *words: str) -> list[dict[str, Any]]:
        """Ask iproute2 for a list."""
        return [entry for entry in json.loads(self.run("ip", "-j", "-d", *words) or "[]") if entry]

    def links(self) -> dict[str, dict[str, Any]]:
        """Give the links by name."""
        return {link["ifname"]: link for link in self.ask_ip("link")}

    def addresses(self, link: str) -> set[str]:
        """Give a link's global addresses with their prefix lengths."""
        return {
            f"{info['local']}/{info['prefixlen']}"
            for found in self.ask_ip("address", "show", "dev", link)
            for info in found["addr_info"]
            if info["scope"] == "global"
        }

    def routes(self, family: int = 4) -> set[tuple[str, str]]:
        """Give the routes of the main table as (destination, gateway or "")."""
        return {(route["dst"], route.get("gateway", "")) for route in self.ask_ip(f"-{family}", "route")}

    def asks(self, kind: str, address: str, port: int) -> str | None:
        """Speak to a server; give the address it saw, without the form of an address mapped to IPv6, or None for no answer."""
        command = [*self._inside, sys.executable, "-I", PEER, "ask", kind, address, str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return str(ipaddress.ip_address(done.stdout.strip())) if done.returncode == 0 else None

    def reaches(self, kind: str, address: str, port: int) -> bool:
        """Tell whether a server answers within some seconds: an IPv6 address may still be tentative."""
        end = time.monotonic() + 6
        while self.asks(kind, address, port) is None:
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    @contextlib.contextmanager
    def server(self, kind: str, address: str, port: int, role: str = "serve") -> Iterator[subprocess.Popen[str]]:
        """Have a server for a while."""
        command = [*self._inside, sys.executable, "-I", PEER, role, kind, address, str(port)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "listening\n"
                yield process
            finally:
                process.kill()

    def seconds_to(self, other: Place, address: str, port: int = 9000) -> float:
        """Send a megabyte to another place and give how long its reader needed."""
        with other.server("tcp", address, port, "swallow") as process:
            self.run(sys.executable, "-I", PEER, "pour", "tcp", address, str(port))
            assert process.stdout is not None
            return float(process.stdout.readline())
