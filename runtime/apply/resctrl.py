"""Intel RDT through resctrl (Documentation/filesystems/resctrl.rst): a class of service, and monitoring, for a container."""

from __future__ import annotations

import os

from runtime.apply.cgroup import files
from runtime.errors import CgroupFault, KernelFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.spec.model import IntelRdt

_STEP = "assign the container to a resctrl group"


def mounted() -> str | None:
    """Give where resctrl is mounted; None where the hardware, the kernel or the administrator has none."""
    for line in files.read("/proc/self", "mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("resctrl "):
            return before.split(" ")[4]
    return None


def join(wanted: IntelRdt, container_id: str, pid: int, root: str | None = None) -> tuple[str, ...]:
    """Put a process, and all it will fork, into its group; give the group's directory and then those made for it.

    Raises KernelFault without resctrl, CgroupFault when the group cannot be had; then nothing is left.
    """
    root = root or mounted()
    if root is None:
        raise KernelFault(
            "intelRdt is specified in config, but Intel RDT is not enabled: no resctrl file system is mounted",
            feature="resctrl",
            step=_STEP,
        )
    group = os.path.normpath(f"{root}/{wanted.clos_id or container_id}")
    made: list[str] = []
    try:
        _open(group, wanted, made)
        change(group, schemata(wanted))
        files.write(group, "tasks", str(pid))
        if wanted.enable_monitoring:
            monitor = f"{group}/mon_groups/{container_id}"
            os.mkdir(monitor)
            made.insert(0, monitor)
            files.write(monitor, "tasks", str(pid))
    except OSError as error:
        leave(tuple(made))
        raise CgroupFault.from_os(error, _STEP, path=group) from error
    except CgroupFault:
        leave(tuple(made))
        raise
    return (group, *made)


def _open(group: str, wanted: IntelRdt, made: list[str]) -> None:
    if os.path.isdir(group):
        return
    if wanted.clos_id and not schemata(wanted):
        raise CgroupFault("it does not exist, and no schema says what it should be", step=_STEP, path=group)
    os.mkdir(group)
    made.append(group)


def schemata(wanted: IntelRdt) -> tuple[str, ...]:
    """Give the lines for the group's schemata, in the order they are to be written."""
    lines = [line for text in (wanted.l3_cache_schema, wanted.mem_bw_schema) for line in text.splitlines()]
    return tuple(line.strip() for line in (*lines, *wanted.schemata) if line.strip())


def change(group: str, lines: tuple[str, ...]) -> None:
    """Write a group's schemata; raise CgroupFault with what the kernel says of them."""
    if not lines:
        return
    try:
        files.write(group, "schemata", "".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise CgroupFault.from_os(error, "write the resctrl schemata", _complaint(group), path=group) from error


def _complaint(group: str) -> str:
    for folder in (group, os.path.dirname(group)):
        try:
            return files.read(f"{folder}/info", "last_cmd_status").strip()
        except OSError:
            continue
    return ""


def leave(made: tuple[str, ...]) -> None:
    """Remove the directories that were made for a container; absent ones are no error."""
    for directory in made:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            continue
