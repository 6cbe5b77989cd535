"""Masquerading for plugins with ipMasq: what a container sends out of its own network gets the host's address.

postrouting: the container's address is looked up in a map and jumps to the chain of its network;
that chain lets through what stays in the network and multicast, and masquerades the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni import nft
from cni.errors import CniFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.skel import Request
    from cni.types import IPConfig, IPNetwork

_NAME = "wherry-masquerade"
_SETUP = f"""\
add table inet {_NAME}
add map inet {_NAME} source4 {{ type ipv4_addr : verdict; }}
add map inet {_NAME} source6 {{ type ipv6_addr : verdict; }}
add chain inet {_NAME} postrouting {{ type nat hook postrouting priority srcnat; }}
flush chain inet {_NAME} postrouting
add rule inet {_NAME} postrouting ip saddr vmap @source4
add rule inet {_NAME} postrouting ip6 saddr vmap @source6
"""
_TABLE = nft.Table(name=_NAME, setup=_SETUP, base="postrouting", maps=("source4", "source6"))


def add(request: Request, ips: Sequence[IPConfig]) -> None:
    """Masquerade the addresses of an attachment; all or none."""
    owner = nft.owner(request.network, request.container_id, request.ifname)
    elements = [
        nft.Element(
            map=f"source{ip.address.version}",
            key=nft.address_key(ip.address.ip),
            jump=nft.chain_name("net", ip.address.network),
            owner=owner,
        )
        for ip in ips
    ]
    if elements:
        _TABLE.add(elements, "".join(_chain(network) for network in {ip.address.network for ip in ips}))


def delete(request: Request) -> None:
    """Stop masquerading for an attachment; not doing so is no error."""
    owner = nft.owner(request.network, request.container_id, request.ifname)
    _TABLE.remove(owner.__eq__, owner)


def check(request: Request, ips: Sequence[IPConfig]) -> None:
    """Raise CniFault when an address of the attachment is not masqueraded."""
    owner = nft.owner(request.network, request.container_id, request.ifname)
    wanted = len({ip.address.ip for ip in ips})
    if len(_TABLE.owned(owner)) < wanted:
        raise CniFault(f"masquerading of {request.container_id}/{request.ifname} is missing from table inet {_NAME}")


def gc(request: Request) -> None:
    """Stop masquerading for every attachment of the network that is not valid."""
    _TABLE.remove(nft.stale(request.network, request.valid_attachments))


def _chain(network: IPNetwork) -> str:
    name = nft.chain_name("net", network)
    family, multicast = ("ip", "224.0.0.0/4") if network.version == 4 else ("ip6", "ff00::/8")
    return (
        f"add chain inet {_NAME} {name}\n"
        f"flush chain inet {_NAME} {name}\n"
        f"add rule inet {_NAME} {name} {family} daddr {{ {network}, {multicast} }} return\n"
        f"add rule inet {_NAME} {name} masquerade\n"
    )
