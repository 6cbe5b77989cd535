"""Choose the manifest for this machine from an index, as containerd's platform matcher orders them."""

from __future__ import annotations

import os

from shim.errors import NotFound
from shim.image.oci import Descriptor, Platform, parse_platform

_MACHINES = {
    "x86_64": Platform(os="linux", architecture="amd64"),
    "aarch64": Platform(os="linux", architecture="arm64", variant="v8"),
    "armv7l": Platform(os="linux", architecture="arm", variant="v7"),
    "armv6l": Platform(os="linux", architecture="arm", variant="v6"),
    "i686": Platform(os="linux", architecture="386"),
    "ppc64le": Platform(os="linux", architecture="ppc64le"),
    "s390x": Platform(os="linux", architecture="s390x"),
    "riscv64": Platform(os="linux", architecture="riscv64"),
    "loongarch64": Platform(os="linux", architecture="loong64"),
}
_ARM_VARIANTS = ("v5", "v6", "v7", "v8")
_DEFAULT_VARIANTS = {"arm": "v7", "arm64": "v8"}


def host_platform(configured: str = "") -> Platform:
    """Give the platform that images are wanted for; raise InvalidArgument for a malformed setting."""
    if configured:
        return parse_platform(configured)
    machine = os.uname().machine
    return _MACHINES.get(machine, Platform(os="linux", architecture=machine))


def choose(entries: tuple[Descriptor, ...], wanted: Platform, what: str) -> Descriptor:
    """Give the best entry for `wanted`; entries without a platform come last; raise NotFound listing what there is."""
    ranked = [(rank, place) for place, entry in enumerate(entries) if (rank := _rank(entry.platform, wanted)) is not None]
    if not ranked:
        there = ", ".join(sorted({str(entry.platform) for entry in entries if entry.platform})[:20]) or "nothing"
        raise NotFound(f"{what} has no image for {wanted}; it has {there}")
    return entries[min(ranked)[1]]


def _rank(platform: Platform | None, wanted: Platform) -> int | None:
    if platform is None or not platform.architecture:
        return 100
    if platform.os != wanted.os or platform.architecture != wanted.architecture:
        return None
    have = platform.variant or _DEFAULT_VARIANTS.get(wanted.architecture, "")
    want = wanted.variant or _DEFAULT_VARIANTS.get(wanted.architecture, "")
    if have == want:
        return 0
    if wanted.architecture == "arm" and have in _ARM_VARIANTS and want in _ARM_VARIANTS:
        distance = _ARM_VARIANTS.index(want) - _ARM_VARIANTS.index(have)
        return distance if distance > 0 else None
    if wanted.architecture == "amd64" and not have:
        return 1
    return None
