"""Names of systemd's units and the properties a container's scope has (systemd.scope(5), org.freedesktop.systemd1(5)): pure."""

from __future__ import annotations

from runtime.errors import CgroupFault, SpecFault
from runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.spec.lasting import Pairs

ANNOTATION = "org.systemd.property."
"""Annotations that begin so set a property of the scope, as they do for runc and crun."""
_NAME_LIMIT = 255
_STEP = "find the container's cgroup"


class Property(Record):
    """One property of a unit: a value and its D-Bus signature."""

    name: str
    signature: str
    value: Any


class Unit(Record):
    """The scope of a container, the slice it lies in, and whether the caller's own manager runs it, not the system's."""

    name: str
    slice: str
    user: bool = False

    @property
    def path(self) -> str:
        """Give the path of its cgroup, below the manager's."""
        return f"{slice_path(self.slice)}/{self.name}"


def unit_of(cgroups_path: str, container_id: str, *, user: bool = False) -> Unit:
    """Give the unit that cgroupsPath, "slice:prefix:name" or nothing, asks for; raise CgroupFault for any other form."""
    parent, prefix, name = "", "wherry", container_id
    if cgroups_path:
        parts = cgroups_path.split(":")
        if len(parts) != 3:
            raise CgroupFault(
                f'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "{cgroups_path}" instead',
                step=_STEP,
            )
        parent, prefix, name = parts
    if name.endswith(".slice"):
        raise CgroupFault(f'cgroupsPath "{cgroups_path}" names a slice, in which no process can be: name a scope', step=_STEP)
    unit = Unit(name=f"{prefix}-{name}.scope", slice=parent or ("user.slice" if user else "system.slice"), user=user)
    if len(unit.name) > _NAME_LIMIT or not name or not _plain(unit.name):
        raise CgroupFault(f'"{unit.name}" cannot be the name of a systemd unit: use letters, digits and :_.-', step=_STEP)
    slice_path(unit.slice)
    return unit


def _plain(name: str) -> bool:
    return all(character.isascii() and (character.isalnum() or character in ":_.-\\@") for character in name)


def slice_path(name: str) -> str:
    """Give the path of a slice's cgroup: a-b.slice lies in /a.slice (systemd.slice(5)); raise CgroupFault for no slice."""
    stem = name.removesuffix(".slice")
    if stem == "-" and name != stem:
        return ""
    parts = stem.split("-")
    if not name.endswith(".slice") or not all(parts) or not _plain(name):
        raise CgroupFault(f'"{name}" is not the name of a systemd slice, such as a-b.slice', step=_STEP)
    return "".join(f"/{'-'.join(parts[: end + 1])}.slice" for end in range(len(parts)))


def scope_properties(unit: Unit, holds: str, pids: list[int], *, v2: bool) -> tuple[Property, ...]:
    """Give what every scope has: the processes it begins with, everything counted, and its cgroup left to us to divide.

    `holds` says in systemd's listings what is in it.
    """
    accounts = ("MemoryAccounting", "CPUAccounting", "IOAccounting" if v2 else "BlockIOAccounting", "TasksAccounting")
    return (
        Property(name="Description", signature="s", value=f"wherry {holds}"),
        Property(name="Slice", signature="s", value=unit.slice),
        Property(name="Delegate", signature="b", value=True),
        Property(name="PIDs", signature="au", value=pids),
        *(Property(name=name, signature="b", value=True) for name in accounts),
        Property(name="DefaultDependencies", signature="b", value=False),
    )


def annotated_properties(annotations: Pairs) -> tuple[Property, ...]:
    """Give the properties annotations ask for; raise SpecFault for a name that is no property's or a value that is none.

    Names are letters only and values are parsed here and sent typed: nothing in them reaches systemd as text to interpret.
    """
    found = []
    for key, text in annotations:
        if key.startswith(ANNOTATION):
            found.append(_annotated(key, key[len(ANNOTATION) :], text))
    return tuple(found)


def _annotated(key: str, name: str, text: str) -> Property:
    from runtime.plan.gvariant import parse

    pointer = f"/annotations/{key}"
    if len(name) < 3 or not (name.isascii() and name.isalpha()):
        raise SpecFault("the name of a systemd property has letters only, three or more", pointer=pointer)
    try:
        signature, value = parse(text)
    except ValueError as error:
        raise SpecFault(f'"{text}" is no value of a systemd property: {error}', pointer=pointer) from None
    stem = name.removesuffix("Sec")
    if stem != name and stem[-1:].islower():  # documented in seconds, spoken in microseconds
        if signature not in ("y", "n", "q", "i", "u", "x", "t", "d") or value < 0:
            raise SpecFault("a time in seconds is a number", pointer=pointer)
        if value * 1_000_000 >= 1 << 64:
            raise SpecFault("a time in seconds is not that long", pointer=pointer)
        return Property(name=f"{stem}USec", signature="t", value=int(value * 1_000_000))
    return Property(name=name, signature=signature, value=value)
