"""Capabilities of the process, within what the daemon itself may give."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shim.container.spec.host import HostFacts
    from shim.gen.runtime.v1.api_pb2 import LinuxContainerSecurityContext

# The kernel's capabilities in the order of their bits (linux/capability.h, Linux 6.x).
KNOWN = tuple(
    """
    CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP
    CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER
    CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE
    CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP
    CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF
    CAP_CHECKPOINT_RESTORE
    """.split()  # noqa: SIM905 - forty-one quoted lines would hide the order
)

# What a container has when nothing is asked for: containerd's and Docker's list.
DEFAULT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)


def process_capabilities(security: LinuxContainerSecurityContext, host: HostFacts) -> tuple[dict[str, list[str]], list[str]]:
    """Give the OCI capability sets and the notes on what this host cannot give.

    ALL is taken first, so that single names still add to or drop from it. Nothing becomes inheritable or ambient unless
    add_ambient_capabilities asks for it (an inheritable set lets executables' own inheritable bits grant privileges:
    CVE-2022-24769). A privileged container has all that the daemon has.
    """
    if security.privileged:
        return _sets(host.capabilities, ()), []
    asked = security.capabilities
    add, drop, ambient = (_names(x) for x in (asked.add_capabilities, asked.drop_capabilities, asked.add_ambient_capabilities))
    chosen = dict.fromkeys(DEFAULT)
    if "CAP_ALL" in add:
        chosen = dict.fromkeys(host.capabilities)
    if "CAP_ALL" in drop:
        chosen = {}
    if "CAP_ALL" in ambient:
        ambient = [*ambient, *host.capabilities]
    chosen.update(dict.fromkeys([*add, *ambient]))
    for name in [*drop, "CAP_ALL"]:
        chosen.pop(name, None)
    given = [name for name in chosen if name in host.capabilities]
    refused = [name for name in chosen if name not in host.capabilities]
    return _sets(given, [name for name in given if name in ambient]), [_refusal(name) for name in refused]


def _names(asked: Iterable[str]) -> list[str]:
    return [name if name.startswith("CAP_") else f"CAP_{name}" for name in (text.upper() for text in asked)]


def _sets(given: Sequence[str], ambient: Sequence[str]) -> dict[str, list[str]]:
    sets = {"bounding": list(given), "effective": list(given), "permitted": list(given)}
    if ambient:
        sets |= {"inheritable": list(ambient), "ambient": list(ambient)}
    return sets


def _refusal(name: str) -> str:
    if name not in KNOWN:
        return f"capability {name} is unknown to this kernel and left out"
    return f"capability {name} is not in the daemon's bounding set and left out"
