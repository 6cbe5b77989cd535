"""A container's cgroups: where they are and what stands in their files, on v1, hybrid and v2."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from conformance.oci.support import host

if TYPE_CHECKING:
    from conformance.oci.support.case import Case


def folder(pid: int, controller: str) -> str:
    """Give the cgroup folder of a process for a controller (the one folder on v2)."""
    mounts = host.cgroup_mounts()
    key = "" if host.v2() else controller
    for line in host.read(f"/proc/{pid}/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if key in [name.removeprefix("name=") for name in names.split(",")]:
            return mounts[key] + _below(key, path)
    raise AssertionError(f"process {pid} is in no {controller} cgroup")


def _below(key: str, path: str) -> str:
    """Give a path as seen from the mount point: the mount may begin below the hierarchy's root."""
    own = next(
        line.split(" ")[3]
        for line in host.read("/proc/self/mountinfo").splitlines()
        if line.split(" ")[4] == host.cgroup_mounts()[key]
    )
    return path if own == "/" else path.removeprefix(own)


def value(case: Case, controller: str, v1: str, v2: str) -> str:
    """Read a file of the newest container's cgroup: its name on v1, and on v2."""
    return host.read(f"{folder(case.pid(), controller)}/{v2 if host.v2() else v1}")


def has_file(controller: str, v1: str, v2: str) -> bool:
    """Tell whether the kernel has a file in cgroups below the root, without making one where one can be seen."""
    point = host.CGROUPS if host.v2() else host.cgroup_mounts().get(controller)
    if point is None:
        return False
    name = v2 if host.v2() else v1
    if os.path.exists(f"{point}/{name}"):
        return True
    probe = f"{point}/judge-probe-{os.getpid()}"
    os.mkdir(probe)
    try:
        return os.path.exists(f"{probe}/{name}")
    finally:
        os.rmdir(probe)


def need_file(controller: str, v1: str, v2: str) -> None:
    """Skip where the kernel does not have a file of a controller."""
    host.need_controller(controller)
    name = v2 if host.v2() else v1
    host.need(
        name and has_file(controller, v1, v2),
        f"no {name or 'such file on v2' if host.v2() else v1} in the {controller} controller",
    )


def throttles(device: int) -> dict[str, Any]:
    """Give a blockIO that throttles a device (st_rdev) in all four ways; `has_throttles` knows the rates."""
    entry = {"major": os.major(device), "minor": os.minor(device)}
    return {
        "throttleReadBpsDevice": [entry | {"rate": 1 << 20}],
        "throttleWriteBpsDevice": [entry | {"rate": 2 << 20}],
        "throttleReadIOPSDevice": [entry | {"rate": 300}],
        "throttleWriteIOPSDevice": [entry | {"rate": 400}],
    }


def has_throttles(case: Case, device: int) -> None:
    """Assert that the newest container's cgroup has them."""
    name = f"{os.major(device)}:{os.minor(device)}"
    if host.v2():
        assert value(case, "blkio", "", "io.max") == f"{name} rbps=1048576 wbps=2097152 riops=300 wiops=400"
        return
    files = {"read_bps": 1 << 20, "write_bps": 2 << 20, "read_iops": 300, "write_iops": 400}
    found = {word: value(case, "blkio", f"blkio.throttle.{word}_device", "") for word in files}
    assert found == {word: f"{name} {rate}" for word, rate in files.items()}


def weight_of_shares(shares: int) -> set[str]:
    """Give what cpu.weight may be for CPU shares: runtimes have converted in two ways."""
    linear = 1 + ((shares - 2) * 9999) // 262142
    logarithm = math.log2(shares)
    quadratic = math.ceil(10 ** ((logarithm * logarithm + 125 * logarithm) / 612.0 - 7.0 / 34.0))
    return {str(linear), str(quadratic)}
