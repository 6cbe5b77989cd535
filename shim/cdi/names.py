"""Names of CDI devices: vendor/class=device (SPEC.md, Kind and CDI Devices)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from shim.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ANNOTATION = "cdi.k8s.io/"
"""Prefix of annotations that ask for devices, as device plugins set them where kubelet has no field."""

_PART = r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?"
KIND = re.compile(rf"{_PART}/{_PART}")
DEVICE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")


def is_qualified(name: str) -> bool:
    """Tell whether a name has the form vendor/class=device."""
    kind, _, device = name.partition("=")
    return KIND.fullmatch(kind) is not None and DEVICE.fullmatch(device) is not None


def wanted_devices(fields: Iterable[str], annotations: Mapping[str, str]) -> list[str]:
    """Give the devices a container asks for, by field and by annotation, each once and in this order.

    Raises InvalidArgument for a name that is none.
    """
    names = dict.fromkeys(fields)
    for key, value in sorted(annotations.items()):
        if key.startswith(ANNOTATION):
            names |= dict.fromkeys(value.split(","))
    for name in names:
        if not is_qualified(name):
            raise InvalidArgument(f"CDI device {name!r} is not named like vendor/class=device")
    return list(names)
