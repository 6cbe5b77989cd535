"""Write namespaced kernel parameters (sysctl(8)) of the namespaces this process is in."""

from __future__ import annotations

import os

from runtime.apply.faults import Step
from runtime.errors import RuntimeFault
from runtime.kernel.path import PROC_SUPER_MAGIC, fstatfs_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.spec.lasting import Pairs


def require_other_network(values: Pairs, network_fd: int) -> None:
    """Refuse parameters of a network that is joined by path and is the runtime's own: they would be the host's."""
    name = next((name for name, _ in values if sysctl_path(name).startswith("net/")), "")
    if name and os.path.samestat(os.fstat(network_fd), os.stat("/proc/self/ns/net")):
        detail = "not allowed in the host's network namespace, which the document's path leads to"
        raise RuntimeFault(detail, step=f"write the sysctl {name}")


def write_sysctls(values: Pairs) -> None:
    """Write each value, through the host's procfs, before the container's root (and whatever it calls /proc) is entered.

    Dots and slashes are exchanged as sysctl(8) does: "net.ipv4.conf.eth0/1.forwarding" is the interface eth0.1.
    """
    if not values:
        return
    with Step("open /proc/sys", "/proc/sys"):
        folder = os.open("/proc/sys", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if fstatfs_type(folder) != PROC_SUPER_MAGIC:
            raise RuntimeFault("this is not the kernel's procfs", step="write sysctls", path="/proc/sys")
        for name, value in values:
            _write(folder, name, value)
    finally:
        os.close(folder)


def sysctl_path(name: str) -> str:
    """Give the path below /proc/sys; whichever separator comes first is the one between components."""
    dot, slash = name.find("."), name.find("/")
    if slash >= 0 and (dot < 0 or slash < dot):
        return name
    return name.replace("/", "\0").replace(".", "/").replace("\0", ".")


def _write(folder: int, name: str, value: str) -> None:
    path = sysctl_path(name)
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise RuntimeFault("this is no name of a kernel parameter", step=f"write the sysctl {name}", path=path)
    with Step(f"write the sysctl {name}", f"/proc/sys/{path}"):
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
