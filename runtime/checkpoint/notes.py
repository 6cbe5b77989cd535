"""Two small files beside criu's images, for the restore: runc's descriptors.json, and our own list of mounts from outside."""

from __future__ import annotations

import os

from runtime.apply.faults import Step
from runtime.errors import SpecFault
from runtime.jsonlite import dumps, loads
from runtime.plan.checkpoint import External
from runtime.state import read_file, write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DESCRIPTORS = "descriptors.json"
"""The standard streams of init: criu's name of each that reaches outside, as runc writes it, else empty."""
MOUNTS = "wherry-mounts.json"


def write(folder: str, mounts: tuple[External, ...], streams: tuple[str, ...]) -> None:
    """Write both files; raise RuntimeFault."""
    named = [{"point": one.point, "under": one.under, "inside": one.inside} for one in mounts if one.under]
    for name, value in ((DESCRIPTORS, list(streams)), (MOUNTS, named)):
        path = os.path.join(folder, name)
        with Step("write what the restore must know", path):
            write_file(path, dumps(value).encode("utf-8", "surrogateescape"))


def read_streams(folder: str) -> tuple[str, ...]:
    """Give the names of the streams; none where the images were written by a runtime that notes none."""
    value = _read(folder, DESCRIPTORS)
    return tuple(str(one) for one in value[:3])


def read_mounts(folder: str) -> tuple[External, ...]:
    """Give the mounts below binds that the container had; none in images of another runtime."""
    try:
        return tuple(
            External(point=str(one["point"]), under=str(one["under"]), inside=str(one["inside"]))
            for one in _read(folder, MOUNTS)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SpecFault(f"it is not what a checkpoint writes ({error})", document=MOUNTS) from error


def _read(folder: str, name: str) -> list[Any]:
    try:
        value = loads(read_file(os.path.join(folder, name)))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise SpecFault(f"it is not JSON ({error})", document=name) from error
    if not isinstance(value, list):
        raise SpecFault("it is not a list", document=name)
    return value
