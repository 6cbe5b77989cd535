"""Write the id maps of a user namespace that a user without privileges has made (user_namespaces(7), newuidmap(1))."""

from __future__ import annotations

import errno
import os

from runtime.apply.faults import Step
from runtime.errors import RuntimeFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.plan.namespaces import NamespacePlan

_MESSAGE_LIMIT = 4096


def write_own_maps(namespaces: NamespacePlan, pid: int) -> None:
    """Map the user's own ids through /proc, and more than those with the set-uid tools newuidmap and newgidmap.

    A single gid, the caller's, may be mapped only by who gives up setgroups(2) for good.
    """
    if namespaces.gid_map.split() == ["0", str(os.getegid()), "1"]:
        _write(pid, "setgroups", "deny")
    for name, tool, text in (("uid_map", "newuidmap", namespaces.uid_map), ("gid_map", "newgidmap", namespaces.gid_map)):
        try:
            _write(pid, name, text)
        except RuntimeFault as fault:
            if fault.errno != errno.EPERM:
                raise
            _use_tool(tool, pid, text)


def _write(pid: int, name: str, text: str) -> None:
    path = f"/proc/{pid}/{name}"
    with Step(f"write {name}", path):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def _use_tool(tool: str, pid: int, text: str) -> None:
    from runtime.kernel.spawn import spawn, wait

    path = _find(tool)
    if path is None:
        raise RuntimeFault(
            f"{tool} is not installed, and without it a user can map only his own ids: install uidmap", step="map ids"
        )
    reader, writer = os.pipe2(os.O_CLOEXEC)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    child = spawn([tool, str(pid), *text.split()], dict(os.environ), (null, null, writer), path=path)
    os.close(writer)
    os.close(null)
    said = b""
    while len(said) < _MESSAGE_LIMIT and (part := os.read(reader, _MESSAGE_LIMIT)):
        said += part
    os.close(reader)
    if code := wait(child):
        words = " ".join(said.decode("utf-8", "replace").split())
        raise RuntimeFault(f"{tool} exited with {code}: {words or 'it said nothing'}", step="map ids")


def _find(tool: str) -> str | None:
    for folder in os.environ.get("PATH", "").split(":"):
        path = f"{folder}/{tool}"
        if folder.startswith("/") and os.access(path, os.X_OK):
            return path
    return None
