"""What a CDI file says, as values (SPEC.md, OCI Edits)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A device node. What is None or empty is taken from the host's node at `host_path`."""

    path: str
    host_path: str = ""
    kind: str = ""
    major: int = 0
    minor: int = 0
    mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A mount."""

    host_path: str
    container_path: str
    kind: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """An OCI hook; `name` is the runtime-spec's name of its kind, `timeout` seconds."""

    name: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """Changes to a container; `net_devices` maps names on the host to names inside, `intel_rdt` is as in the runtime-spec."""

    env: tuple[str, ...] = ()
    nodes: tuple[Node, ...] = ()
    net_devices: Mapping[str, str] = field(default_factory=dict)
    hooks: tuple[Hook, ...] = ()
    mounts: tuple[Mount, ...] = ()
    intel_rdt: Mapping[str, Any] | None = None
    gids: tuple[int, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether they change nothing."""
        return self == Edits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device of a file; the name is qualified."""

    name: str
    edits: Edits


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One file: `edits` go with any of its devices."""

    path: str
    kind: str
    devices: tuple[Device, ...]
    edits: Edits
