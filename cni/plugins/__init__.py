"""The bundled plugins, by their CNI type. Each is one module (and its helpers) that defines PLUGIN."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING

from cni.errors import CniFault

if TYPE_CHECKING:
    from cni.skel import Plugin

MODULES = {
    "loopback": "cni.plugins.loopback",
    "bridge": "cni.plugins.bridge",
    "ptp": "cni.plugins.ptp",
    "host-local": "cni.plugins.host_local",
    "portmap": "cni.plugins.portmap",
    "tuning": "cni.plugins.tuning",
    "bandwidth": "cni.plugins.bandwidth",
    "firewall": "cni.plugins.firewall",
}


def find(kind: str) -> Plugin | None:
    """Give the bundled plugin of type `kind`, None when there is none."""
    module = MODULES.get(kind)
    if module is None:
        return None
    plugin: Plugin = importlib.import_module(module).PLUGIN
    return plugin


def preload() -> None:
    """Import every plugin and load what they load, so that a process forked later finds it warm."""
    for kind in MODULES:
        find(kind)
    nft = importlib.import_module("cni.nft")
    with contextlib.suppress(CniFault):  # a host without nftables can use the plugins that need none
        nft.warm()
