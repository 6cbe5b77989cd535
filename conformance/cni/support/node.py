"""A node under judgement: pods, chains of plugins, and what is left when all are detached again."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from conformance.cni.support.pod import Place
from conformance.cni.support.world import new_network, run

if TYPE_CHECKING:
    from pathlib import Path

    from conformance.cni.support.plugins import Answer, Plugins

HOST = Place()
TAMPERINGS = {
    "link": ("ip", "link", "del", "eth0"),
    "address": ("ip", "address", "flush", "dev", "eth0", "scope", "global"),
    "route": ("ip", "route", "del", "default"),
}
"""What somebody may do to an attachment, such that CHECK has to complain."""
SECONDS = 5.0
"""How long the kernel may take to end a namespace."""
MADE_HERE = "made by a test"
"""The alias of links that no plugin has to take away."""
Attached = tuple[str, Place, list[dict[str, Any]], str]
"""The container's id, its namespace, the configurations of the chain, and the interface's name."""


class Node:
    """One test's networks, namespaces and attachments; `close` detaches them all and says what is left."""

    def __init__(self, plugins: Plugins, folder: Path) -> None:
        self.plugins = plugins
        self.folder = folder
        self.word = secrets.token_hex(3)
        self.bridge = f"br{self.word}"
        self._places: list[Place] = []
        self._attached: list[Attached] = []
        new_network()

    # ---- configurations

    def config(self, plugin: str, **fields: Any) -> dict[str, Any]:
        """Give a configuration of one plugin, in the newest version."""
        return {"cniVersion": self.plugins.newest, "name": f"net{self.word}", "type": plugin} | fields

    def ipam(self, *subnets: str, **fields: Any) -> dict[str, Any]:
        """Give host-local's part, with its data in the test's folder."""
        ranges = [[{"subnet": subnet}] for subnet in subnets or ("10.77.0.0/24",)]
        return {"type": "host-local", "ranges": ranges, "dataDir": str(self.folder / "leases")} | fields

    def on_bridge(self, *subnets: str, **fields: Any) -> dict[str, Any]:
        """Give a configuration of the bridge plugin with a gateway and a default route."""
        return self.config("bridge", bridge=self.bridge, isDefaultGateway=True, ipam=self.ipam(*subnets)) | fields

    # ---- places

    def place(self) -> Place:
        """Make a network namespace."""
        place = Place(f"cni-{secrets.token_hex(4)}")
        run("ip", "netns", "add", place.name)
        place.run("ip", "link", "set", "lo", "up")
        self._places.append(place)
        return place

    def neighbour(self, address: str = "192.0.2.2/24", host: str = "192.0.2.1/24", route: str = "") -> Place:
        """Make another machine: a namespace on a wire to the host, with a route to what lies behind the host."""
        place, ours = self.place(), f"wire{self.word}"
        run("ip", "link", "add", ours, "type", "veth", "peer", "name", "eth0", "netns", place.name)
        run("ip", "address", "add", host, "dev", ours, "nodad")
        run("ip", "link", "set", ours, "up")
        place.run("ip", "address", "add", address, "dev", "eth0", "nodad")
        place.run("ip", "link", "set", "eth0", "up")
        if route:
            place.run("ip", "route", "add", route, "via", host.partition("/")[0])
        return place

    def lose(self, place: Place) -> None:
        """Remove a namespace, as a crash does, while it is attached."""
        run("ip", "netns", "del", place.name)
        self._places.remove(place)

    # ---- calls

    def call(self, command: str, config: dict[str, Any], place: Place | None, container: str = "", **variables: str) -> Answer:
        """Call one plugin for a namespace, or for one that is gone."""
        environment = {
            "CNI_CONTAINERID": container or (place.name if place else ""),
            "CNI_NETNS": place.path if place else "",
            "CNI_IFNAME": "eth0",
        } | variables
        return self.plugins.call(command, config, environment=environment)

    def add(self, place: Place, *chain: dict[str, Any], ifname: str = "eth0", args: str = "") -> dict[str, Any]:
        """Attach a namespace through a chain, each plugin getting what the one before it gave; give the last result."""
        result: dict[str, Any] | None = None
        done: list[dict[str, Any]] = []
        self._attached.append((place.name, place, done, ifname))
        for config in chain:
            given = config if result is None else config | {"prevResult": result}
            done.append(given)
            result = self.call("ADD", given, place, CNI_IFNAME=ifname, CNI_ARGS=args).result()
        assert result is not None
        for index, config in enumerate(done):
            done[index] = config | {"prevResult": result}  # CHECK and DEL are given the last result
        return result

    def refused(self, config: dict[str, Any], place: Place) -> None:
        """Require that ADD fails; then do as a runtime does, which calls DEL, whatever that says to such a configuration."""
        self.call("ADD", config, place).fault()
        self.call("DEL", config, place)

    def check(self, place: Place) -> list[Answer]:
        """Give what each plugin of a namespace's attachment says to CHECK."""
        return [
            self.call("CHECK", config, place, CNI_IFNAME=ifname)
            for _name, attached, chain, ifname in self._attached
            if attached is place
            for config in chain
        ]

    def delete(self, place: Place, *, gone: bool = False) -> None:
        """Detach a namespace in the reverse order, as one that exists or is `gone`."""
        for entry in [entry for entry in self._attached if entry[1] is place]:
            name, _place, chain, ifname = entry
            for config in reversed(chain):
                self.call("DEL", config, None if gone else place, name, CNI_IFNAME=ifname).done()
            self._attached.remove(entry)

    # ---- the end

    def close(self) -> list[str]:
        """Detach everything; give what is left of it on the host."""
        attached = list(self._attached)
        for _name, place, _chain, _ifname in attached:
            self.delete(place, gone=place not in self._places)
        left = [f"link {name}" for name in self._links_left()]
        left += _rules(attached)
        for place in [*self._places]:
            self.lose(place)
        return left

    def _links_left(self) -> set[str]:
        """Give the links on the host that plugins made and did not take back, but for bridges, which may stay."""
        ours, end = {"lo", self.bridge, f"wire{self.word}"}, time.monotonic() + SECONDS
        while True:
            left = {name for name, link in HOST.links().items() if name not in ours and link.get("ifalias") != MADE_HERE}
            if not left or time.monotonic() > end:
                return left
            time.sleep(0.05)  # a pair goes with its namespace, but the kernel takes its time

    def leases(self) -> set[str]:
        """Give the addresses that host-local has reserved."""
        return {
            file.name.replace("_", ":") for file in self.folder.glob("leases/*/*") if file.name[0].isdigit() or ":" in file.name
        }


def _rules(attached: list[Attached]) -> list[str]:
    """Give the rules of the host's firewall that still speak of a container or its address."""
    words = {name for name, *_rest in attached}
    for _name, _place, chain, _ifname in attached:
        result = chain[-1].get("prevResult") if chain else None
        words |= {ip["address"].partition("/")[0] for ip in (result or {}).get("ips", ())}
    rules = run("nft", "list", "ruleset").splitlines()
    return [f"rule {line.strip()}" for line in rules if words & set(line.replace(",", " ").replace('"', " ").split())]


def addresses(result: dict[str, Any]) -> list[str]:
    """Give the addresses of a result, without their prefix lengths."""
    return [ip["address"].partition("/")[0] for ip in result["ips"]]
