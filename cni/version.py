"""Versions of the CNI protocol: which are spoken, and how a common one is chosen."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cni.errors import VersionFault

if TYPE_CHECKING:
    from collections.abc import Iterable

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
CURRENT = SUPPORTED[-1]
# A configuration without cniVersion is one of the first format (specification, "Network configuration").
UNSTATED = "0.1.0"
CHECK_SINCE = "0.4.0"
GC_SINCE = "1.1.0"
STATUS_SINCE = "1.1.0"

_FORM = re.compile(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})")


def parse(text: str) -> tuple[int, int, int]:
    """Give the numbers of a version such as "1.1.0"; raise VersionFault for another form."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise VersionFault(f"version {text!r} is not of the form 1.1.0")
    major, minor, micro = match.groups()
    return int(major), int(minor), int(micro)


def at_least(version: str, since: str) -> bool:
    """Tell whether `version` is `since` or newer."""
    return parse(version) >= parse(since)


def highest(offered: Iterable[str], *others: Iterable[str]) -> str:
    """Choose the newest of `offered` that this package and every one of `others` speak.

    Raises VersionFault, listing both sides, when there is none.
    """
    wanted = list(offered)
    common = set(wanted) & set(SUPPORTED)
    for other in others:
        common &= set(other)
    if not common:
        spoken = " / ".join(", ".join(other) for other in (SUPPORTED, *others))
        raise VersionFault(
            f"no common cni version: the configuration offers {', '.join(wanted) or 'none'}", details=f"spoken: {spoken}"
        )
    return max(common, key=parse)
