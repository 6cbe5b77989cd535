"""firewall: which forwarded traffic reaches a container.

forward: what belongs to a connection passes; a container's address is looked up in a map and jumps to the chain of its policy.

    open          everything may reach the container
    same-bridge   new connections only from its own bridge (and from the host, which does not forward)

What another table drops stays dropped: in nftables only a drop is final, so this plugin cannot open what another firewall
closes, and it does not write into tables that are not its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni import nft, wire
from cni.errors import CniFault, Malformed
from cni.link import Links
from cni.plugins import previous
from cni.skel import Plugin, Request

if TYPE_CHECKING:
    from cni.types import Result

_NAME = "wherry-firewall"
_SETUP = f"""\
add table inet {_NAME}
add map inet {_NAME} to4 {{ type ipv4_addr : verdict; }}
add map inet {_NAME} to6 {{ type ipv6_addr : verdict; }}
add chain inet {_NAME} forward {{ type filter hook forward priority filter; }}
flush chain inet {_NAME} forward
add rule inet {_NAME} forward ct state established,related accept
add rule inet {_NAME} forward ip daddr vmap @to4
add rule inet {_NAME} forward ip6 daddr vmap @to6
"""
_TABLE = nft.Table(name=_NAME, setup=_SETUP, base="forward", maps=("to4", "to6"))
_POLICIES = ("", "open", "same-bridge")
_BACKENDS = ("", "iptables", "nftables")


def add(request: Request) -> Result:
    """Admit what the policy admits; all addresses or none."""
    policy = read(request)
    result = previous.result(request)
    chain, script = _same_bridge(result) if policy == "same-bridge" else _open()
    owner = nft.owner(request.network, request.container_id, request.ifname)
    elements = [
        nft.Element(map=f"to{ip.address.version}", key=nft.address_key(ip.address.ip), jump=chain, owner=owner)
        for ip in result.ips
    ]
    if elements:
        _TABLE.add(elements, script)
    return result


def delete(request: Request) -> None:
    """Forget the attachment; not knowing it is no error."""
    owner = nft.owner(request.network, request.container_id, request.ifname)
    _TABLE.remove(owner.__eq__, owner)


def check(request: Request) -> None:
    """Raise CniFault when an address of the attachment is not in the table."""
    read(request)
    owner = nft.owner(request.network, request.container_id, request.ifname)
    wanted = {ip.address.ip for ip in previous.result(request).ips}
    if len(_TABLE.owned(owner)) < len(wanted):
        raise CniFault(f"rules of {request.container_id}/{request.ifname} are missing from table inet {_NAME}")


def gc(request: Request) -> None:
    """Forget every attachment of the network that is not valid."""
    _TABLE.remove(nft.stale(request.network, request.valid_attachments))


def status(request: Request) -> None:
    """Raise CniFault when ADD could not work."""
    read(request)
    nft.available()


def read(request: Request) -> str:
    """Read the configuration and give the policy; raise Malformed naming the pointer."""
    backend, policy = wire.text(request.config, "backend"), wire.text(request.config, "ingressPolicy")
    if backend not in _BACKENDS:
        raise Malformed(f"{backend!r} is not supported: rules are made with nftables", "/backend")
    if policy not in _POLICIES:
        raise Malformed(f"{policy!r} is not supported: it must be open or same-bridge", "/ingressPolicy")
    if wire.text(request.config, "iptablesAdminChainName"):
        raise Malformed("is not supported: rules are made with nftables", "/iptablesAdminChainName")
    return policy


def _open() -> tuple[str, str]:
    name = "open"
    return name, f"add chain inet {_NAME} {name}\nflush chain inet {_NAME} {name}\nadd rule inet {_NAME} {name} accept\n"


def _same_bridge(result: Result) -> tuple[str, str]:
    with Links() as host:
        bridges = [one.name for one in result.interfaces if not one.sandbox and _is_bridge(host, one.name)]
    if not bridges:
        raise CniFault("ingressPolicy same-bridge needs a bridge: no interface of prevResult is one on this host")
    name = nft.chain_name("same", bridges[0])
    return name, (
        f"add chain inet {_NAME} {name}\n"
        f"flush chain inet {_NAME} {name}\n"
        f'add rule inet {_NAME} {name} iifname "{bridges[0]}" accept\n'
        f"add rule inet {_NAME} {name} drop\n"
    )


def _is_bridge(host: Links, name: str) -> bool:
    found = host.find(name)
    return found is not None and found.kind == "bridge"


PLUGIN = Plugin(name="firewall", add=add, delete=delete, check=check, gc=gc, status=status)
