"""What plugins with a veth pair share: the name of the host's end, and how the pair goes.

The host's end has a name derived from the attachment: DEL finds it without the container's namespace, and after a crash.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

from cni import link, netns, nft
from cni.errors import CniFault, Malformed
from cni.link import End, Link, Links
from cni.plugins import ipam, masquerade

if TYPE_CHECKING:
    from cni.skel import Request
    from cni.types import Result


def host_name(request: Request) -> str:
    """Give the name of the host's end of the pair."""
    words = f"{request.network} {request.container_id} {request.ifname}"
    return f"veth{hashlib.blake2b(words.encode(), digest_size=5).hexdigest()}"


def plug(request: Request, host: Links, inside: Links, here: End, there: End, mtu: int) -> tuple[Link, Link]:
    """Make the pair, both ends up, the host's first; give the host's end and the container's.

    Raises CniFault when the container has an interface of that name; what an ADD of this attachment left that was killed
    is replaced.
    """
    try:
        host.add_veth(here, there, mtu=mtu)
    except FileExistsError:
        if inside.find(request.ifname) is not None:
            raise CniFault(f"link {request.ifname} exists in {request.netns} already") from None
        unplug(request)
        host.add_veth(here, there, mtu=mtu)
    port, container = host.find(here.name), inside.find(request.ifname)
    if port is None or container is None:
        raise CniFault(f"veth {here.name} vanished while it was set up: is another program removing links?")
    inside.set_flags(container.index, link.UP, link.UP)
    return port, container


def unplug(request: Request) -> None:
    """Remove the pair: by the host's end, or by the container's when another plugin made it. Gone already is no error."""
    with Links() as host:
        found = host.find(host_name(request))
        if found is not None:
            host.delete(found)
            return
    if not request.netns:
        return
    with (
        contextlib.suppress(netns.Gone),
        netns.Namespace(request.netns) as namespace,
        namespace.entered(),
        Links() as inside,
    ):
        container = inside.find(request.ifname)
        if container is not None and container.kind == "veth":
            inside.delete(container)


def check_inside(request: Request, result: Result) -> None:
    """Raise CniFault when the container's end is not as ADD's `result` says, Malformed when that does not name it."""
    index = next((n for n, one in enumerate(result.interfaces) if one.sandbox and one.name == request.ifname), None)
    if index is None:
        raise Malformed(f"does not name {request.ifname} in a namespace", "/prevResult/interfaces")
    with netns.Namespace(request.netns) as namespace, namespace.entered(), Links() as inside:
        found = inside.find(request.ifname)
        if found is None or not found.is_up:
            raise CniFault(f"link {request.ifname} in {request.netns} is {'down' if found else 'gone'}")
        if result.interfaces[index].mac.lower() not in {"", found.mac}:
            raise CniFault(f"link {request.ifname} in {request.netns} has another hardware address than after ADD: {found.mac}")
        ipam.verify(inside, found, result, index)


def collect(request: Request, *, masquerades: bool) -> None:
    """Remove the pairs, rules and addresses of this network that belong to no valid attachment (GC)."""
    stale = nft.stale(request.network, request.valid_attachments)
    with contextlib.ExitStack() as steps:
        steps.callback(ipam.other, request, "GC")
        if masquerades:
            steps.callback(masquerade.gc, request)
        with Links() as host:
            for one in host.all():
                if one.alias and stale(one.alias):
                    host.delete(one)
