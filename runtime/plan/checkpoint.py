"""Which mounts and descriptors of a container criu must leave to us, because they reach outside the container.

criu can make file systems anew: proc, tmpfs, devpts and their like. What is bound from the host it only names, and asks for
it by that name when the container is restored.
"""

from __future__ import annotations

import os

from runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runtime.plan.mounts import MountPlan
    from runtime.spec.lasting import Pairs

_CGROUP_TYPES = ("cgroup", "cgroup2")
_TERMINALS = (4, 5, *range(136, 144), 188)
"""Majors that criu takes for terminals: consoles, /dev/tty and its kin, pseudoterminals, serial lines (Linux's devices.txt)."""


class MountLine(Record):
    """One line of /proc/PID/mountinfo (proc(5)): `root` is the part of the file system that is mounted at `point`."""

    number: int
    root: str
    point: str
    fstype: str


class External(Record):
    """A mount from outside: where it is, and what it came from.

    `source` is a host path; a bind has instead `under`, the destination of its plan, and `inside`, the path below its source.
    """

    point: str
    under: str = ""
    inside: str = ""
    source: str = ""


class Known(Record):
    """What the document says of the mounts: plans with the places they really are at, masked paths, bound devices, cgroups."""

    plans: tuple[MountPlan, ...]
    places: tuple[str, ...]
    masked: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    cgroups: Pairs = ()


def parse_mountinfo(text: str) -> tuple[MountLine, ...]:
    """Give the mounts of a mountinfo file in its order; a line that is none is left out."""
    lines = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        words = before.split(" ")
        if dash and len(words) >= 6:
            lines.append(
                MountLine(number=int(words[0]), root=_plain(words[3]), point=_plain(words[4]), fstype=after.split(" ")[0])
            )
    return tuple(lines)


def _plain(word: str) -> str:
    """Undo the octal escapes of blanks and backslashes."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        word = word.replace(code, character)
    return word


def external_mounts(lines: Iterable[MountLine], known: Known) -> tuple[External, ...]:
    """Give the mounts of a container that come from outside, its root left out."""
    found = []
    for line in lines:
        external = None if line.point == "/" else _external(line, known)
        if external is not None:
            found.append(external)
    return tuple(found)


def _external(line: MountLine, known: Known) -> External | None:
    if line.point in known.devices:
        return External(point=line.point, source=line.point)
    if line.point in known.masked and line.root != "/":
        return External(point=line.point, source="/dev/null")
    index = _owner(line.point, known.places)
    if index < 0:
        return None
    plan, place = known.plans[index], known.places[index]
    if plan.kind == "cgroup":
        return _cgroup(line, place, dict(known.cgroups))
    if plan.kind != "bind":
        return None
    inside = line.point[len(place) :]
    return External(point=line.point, under=plan.destination, inside=inside)


def _owner(point: str, places: tuple[str, ...]) -> int:
    """Give the index of the mount that `point` is, or lies in: of the deepest the last, -1 for none."""
    best = -1
    for index, place in enumerate(places):
        inside = point == place or point.startswith(place.rstrip("/") + "/")
        if inside and (best < 0 or len(place) >= len(places[best])):
            best = index
    return best


def _cgroup(line: MountLine, place: str, folders: Mapping[str, str]) -> External | None:
    """Give the folder of a hierarchy that is bound below a v1 tmpfs, or of the v2 one at the place itself."""
    if line.fstype not in _CGROUP_TYPES:
        return None
    name = line.point[len(place) + 1 :]
    for key, folder in folders.items():
        if name == (key.removeprefix("name=") or "unified") or (not name and not key):
            return External(point=line.point, source=folder)
    return None


def cgroup_externals(known: Known) -> tuple[External, ...]:
    """Give what `external_mounts` finds of the cgroup mounts, for a container that is still to be made."""
    found = []
    for plan, place in zip(known.plans, known.places, strict=True):
        if plan.kind == "cgroup":
            names = [("", folder) for key, folder in known.cgroups if not key]
            names += [(f"/{key.removeprefix('name=') or 'unified'}", folder) for key, folder in known.cgroups]
            found += [External(point=place + name, source=folder) for name, folder in names]
    return tuple(found)


class Stream(Record):
    """An open file as /proc/PID/fd/N (`link`), fdinfo (`mount`) and stat(2) show it; `device` is that of a character device."""

    link: str
    mount: int
    inode: int
    device: int = 0
    filesystem: int = 0


def outside_key(stream: Stream, inner: frozenset[int]) -> str:
    """Give criu's name of a standard stream that is outside the container's mounts `inner`, empty for one that is not."""
    if stream.link.startswith("pipe:"):
        return stream.link
    if not stream.link.startswith("/") or stream.mount in inner:
        return ""
    if stream.device and os.major(stream.device) in _TERMINALS:
        return f"tty[{stream.device:x}:{stream.filesystem:x}]"
    return f"file[{stream.mount:x}:{stream.inode:x}]"


def is_outside(key: str) -> bool:
    """Tell whether criu has to be told of a stream by its name; a pipe it finds by itself."""
    return key.startswith(("file[", "tty["))
