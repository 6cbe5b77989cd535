"""The bundled default network: a bridge with IPv4 and IPv6, masqueraded, and host ports. It needs no file on the node."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from cni import conflist
from cni.errors import ConfigFault

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "wherry"
BRIDGE = "wherry0"
# The IPv6 one is a unique local prefix (RFC 4193).
SUBNETS = ("10.88.0.0/16", "fd88:7768:6572::/64")


def network(
    subnets: Sequence[str] = SUBNETS, *, name: str = NAME, bridge: str = BRIDGE, data_dir: str = "", mtu: int = 0
) -> conflist.NetworkList:
    """Give the network as a list of bundled plugins.

    `subnets` are one or more networks, one address of each goes to every pod; `data_dir` holds the reservations ("": the
    standard /var/lib/cni/networks). Raises ConfigFault for a subnet that is none.
    """
    ranges = []
    routes = []
    for text in subnets:
        try:
            subnet = ipaddress.ip_network(text)
        except ValueError as error:
            raise ConfigFault(f"subnet {text!r} of the default network is wrong: {error}") from None
        ranges.append([{"subnet": str(subnet)}])
        routes.append({"dst": "0.0.0.0/0" if subnet.version == 4 else "::/0"})
    ipam: dict[str, Any] = {"type": "host-local", "ranges": ranges, "routes": routes}
    if data_dir:
        ipam["dataDir"] = data_dir
    plugins: list[dict[str, Any]] = [
        {
            "type": "bridge",
            "bridge": bridge,
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": ipam,
        },
        {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
    ]
    if mtu:
        plugins[0]["mtu"] = mtu
    document = {"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": name, "plugins": plugins}
    return conflist.parse(document)
