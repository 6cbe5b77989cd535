"""The kernel parameters of a pod."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from shim.container.spec.namespaces import NODE, uses_user_namespace
from shim.errors import InvalidArgument

if TYPE_CHECKING:
    from shim.container.spec.inputs import SpecSettings
    from shim.gen.runtime.v1.api_pb2 import PodSandboxConfig

# namespaces(7), sysctl(8): what belongs to a namespace, and is therefore the pod's own.
IPC_NAMES = frozenset(("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax"))
IPC_NAMES |= {"kernel.shmmni", "kernel.shm_rmid_forced", "kernel.msg_next_id", "kernel.sem_next_id", "kernel.shm_next_id"}
IPC_PREFIX = "fs.mqueue."
NET_PREFIX = "net."

NAME = re.compile(r"[a-z0-9_-]+([./][a-zA-Z0-9_*-]+)+", re.ASCII)
VALUE = re.compile(r"[\x20-\x2a\x2c-\x7e\t]*", re.ASCII)  # printable, without "+"
LONGEST = 4096


def pod_sysctls(pod: PodSandboxConfig, settings: SpecSettings) -> dict[str, str]:
    """Give the sysctls to set in the pod's namespaces (dotted name → value), the daemon's defaults included.

    Every pod with a network of its own may bind low ports and ping without privileges, as containerd has it; a value in the
    request wins. Names that hold dots (net/ipv4/conf/eth0.1/forwarding) stay in the form with slashes. Raises InvalidArgument
    for a name outside the pod's own namespaces, and for values with control characters or "+", which joined sysctls to one
    another in CVE-2022-0811.
    """
    result = {}
    for name, value in pod.linux.sysctls.items():
        if not VALUE.fullmatch(value) or len(value) > LONGEST:
            raise InvalidArgument(f"linux.sysctls[{name!r}] has a value with control characters, '+' or too many bytes")
        key = normalise(name)
        _check_owned(pod, key, name)
        result[key] = value
    options = pod.linux.security_context.namespace_options
    if options.network != NODE:
        if settings.unprivileged_ports:
            result.setdefault("net.ipv4.ip_unprivileged_port_start", "0")
        if settings.unprivileged_icmp and not uses_user_namespace(options.userns_options):
            result.setdefault("net.ipv4.ping_group_range", "0 2147483647")
    return result


def normalise(name: str) -> str:
    """Give the dotted form; a name whose first separator is "/" may hold dots in its parts and then stays as it is.

    Raises InvalidArgument for anything that could be read as a path elsewhere.
    """
    slash = name.find("/")
    dot = name.find(".")
    slashed = slash >= 0 and (dot < 0 or slash < dot)
    plain = name if not slashed else name.replace("/", ".")
    if not NAME.fullmatch(plain) or "/" in plain or len(name) > 256:
        raise InvalidArgument(f"linux.sysctls has a name {name!r} that is no name of a kernel parameter")
    return name if slashed and dot >= 0 else plain


def _check_owned(pod: PodSandboxConfig, key: str, name: str) -> None:
    options = pod.linux.security_context.namespace_options
    dotted = key.replace("/", ".")
    if dotted.startswith(NET_PREFIX):
        shared = options.network == NODE
    elif dotted in IPC_NAMES or dotted.startswith(IPC_PREFIX):
        shared = options.ipc == NODE
    else:
        raise InvalidArgument(f"linux.sysctls has {name!r}, which belongs to no namespace of a pod")
    if shared:
        raise InvalidArgument(f"linux.sysctls has {name!r}, and the pod shares that namespace with the node")
