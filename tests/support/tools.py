"""Outside programs: where they are, and what to install when they are not."""

from __future__ import annotations

import os
import shutil

PACKAGES = {
    "busybox": "busybox-static",
    "containerd": "containerd",
    "ctr": "containerd",
    "crun": "crun",
    "docker-registry": "docker-registry",
    "ip": "iproute2",
    "newuidmap": "uidmap",
    "nft": "nftables",
    "podman": "podman",
    "runc": "runc",
    "skopeo": "skopeo",
    "umoci": "umoci",
}
"""Program → Debian package that has it."""

CNI_PLUGINS = "/usr/lib/cni"
"""Where Debian's containernetworking-plugins lie."""

_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/local/sbin"))


class MissingToolError(Exception):
    """A program is not installed; the message says what to install."""


def in_ci() -> bool:
    """Say whether a missing tool is a failure (the variable CI is set) or a reason to skip."""
    return bool(os.environ.get("CI"))


def find_tool(name: str) -> str:
    """Give the path of a program; raise MissingToolError that names its package."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        raise MissingToolError(f"{name} is not installed; run: apt-get install {PACKAGES.get(name, name)}")
    return path


def find_cni_plugins() -> str:
    """Give the directory of the standard CNI plugins; raise MissingToolError when it has none."""
    if not os.path.exists(f"{CNI_PLUGINS}/bridge"):
        raise MissingToolError(f"no CNI plugins in {CNI_PLUGINS}; run: apt-get install containernetworking-plugins")
    return CNI_PLUGINS
