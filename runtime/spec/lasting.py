"""Values of config.json that outlive the making of a container: they are kept in its state, which every command reads."""

from __future__ import annotations

from runtime.record import Record

Pairs = tuple[tuple[str, str], ...]
"""A map of strings; `dict(pairs)` gives it back."""


class Hook(Record):
    """One program to run at a step of the life cycle; `args` includes argv[0]; timeout in seconds."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class Hooks(Record):
    """The six kinds of hooks (runtime-spec "POSIX-platform Hooks")."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


class Personality(Record):
    """personality(2): `domain` is LINUX or LINUX32."""

    domain: str
    flags: tuple[str, ...] = ()


class MemoryPolicy(Record):
    """set_mempolicy(2): `mode` is spelled MPOL_BIND, `flags` MPOL_F_STATIC_NODES, `nodes` is a list such as "0-3,7"."""

    mode: str
    nodes: str = ""
    flags: tuple[str, ...] = ()
