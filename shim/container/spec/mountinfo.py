"""Find how the mount that holds a path propagates, from /proc/self/mountinfo (proc(5))."""

from __future__ import annotations

import re

from shim.container.spec.host import SourcePropagation

ESCAPE = re.compile(r"\\([0-7]{3})")


def propagation_of(mountinfo: str, path: str) -> tuple[str, SourcePropagation]:
    """Give the mount point that holds the absolute, resolved `path` and its propagation type.

    The longest mount point wins; of several mounts on one point the last is on top. A line that cannot be read is passed over;
    without any match the answer is a private "/".
    """
    best, kind = "/", SourcePropagation.PRIVATE
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) < 7:
            continue
        point = ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
        if len(point) >= len(best) and _holds(point, path):
            best, kind = point, _kind(fields[6:])
    return best, kind


def _holds(point: str, path: str) -> bool:
    return point in {"/", path} or path.startswith(point + "/")


def _kind(optional: list[str]) -> SourcePropagation:
    tags = optional[: optional.index("-")] if "-" in optional else optional
    if any(tag.startswith("shared:") for tag in tags):
        return SourcePropagation.SHARED
    if any(tag.startswith("master:") for tag in tags):
        return SourcePropagation.SLAVE
    return SourcePropagation.PRIVATE
