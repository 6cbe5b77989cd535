"""loopback: the link `lo` of the container is up."""

from __future__ import annotations

import ipaddress

from cni import link, netns
from cni.errors import CniFault
from cni.skel import Plugin, Request
from cni.types import Interface, IPConfig, Result

_ADDRESSES = ("127.0.0.1/8", "::1/128")


def add(request: Request) -> Result:
    """Bring `lo` up; the addresses come from the kernel."""
    with netns.Namespace(request.netns) as namespace, namespace.entered(), link.Links() as links:
        links.set_flags(link.LOOPBACK_INDEX, link.UP, link.UP)
    if request.prev_result is not None:
        return request.prev_result
    return Result(
        interfaces=(Interface(name="lo", mac="00:00:00:00:00:00", sandbox=request.netns),),
        ips=tuple(IPConfig(address=ipaddress.ip_interface(text), interface=0) for text in _ADDRESSES),
    )


def delete(request: Request) -> None:
    """Bring `lo` down; a namespace that is gone needs nothing."""
    if not request.netns:
        return
    try:
        with netns.Namespace(request.netns) as namespace, namespace.entered(), link.Links() as links:
            links.set_flags(link.LOOPBACK_INDEX, 0, link.UP)
    except netns.Gone:
        return


def check(request: Request) -> None:
    """Raise CniFault when `lo` is not up."""
    with netns.Namespace(request.netns) as namespace, namespace.entered(), link.Links() as links:
        found = links.at(link.LOOPBACK_INDEX)
        if found is None or not found.is_up:
            raise CniFault(f"link lo in {request.netns} is down")


def nothing(request: Request) -> None:
    """Do nothing: there is nothing to collect, and nothing that could be missing."""
    del request


PLUGIN = Plugin(name="loopback", add=add, delete=delete, check=check, gc=nothing, status=nothing)
