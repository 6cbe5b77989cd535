"""The bundled plugins, by their CNI type. Each is one module (and its helpers) that defines PLUGIN."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cni.skel import Plugin

MODULES = {
    "loopback": "cni.plugins.loopback",
    "bridge": "cni.plugins.bridge",
    "host-local": "cni.plugins.host_local",
    "portmap": "cni.plugins.portmap",
}


def find(kind: str) -> Plugin | None:
    """Give the bundled plugin of type `kind`, None when there is none."""
    module = MODULES.get(kind)
    if module is None:
        return None
    plugin: Plugin = importlib.import_module(module).PLUGIN
    return plugin


def preload() -> None:
    """Import every plugin, so that a process forked later finds them warm."""
    for kind in MODULES:
        find(kind)
