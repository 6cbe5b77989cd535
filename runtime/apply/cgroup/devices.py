"""Let a cgroup's processes use only some devices: by v1's lists or by v2's program."""

from __future__ import annotations

import os

from runtime.apply.cgroup import files
from runtime.errors import CgroupFault, KernelFault
from runtime.plan.cgroup import UNIFIED
from runtime.plan.cgroup_devices import device_changes, device_policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.apply.cgroup.group import Cgroup
    from runtime.plan.cgroup_devices import DevicePolicy
    from runtime.spec.resources import DeviceRule


def confine(group: Cgroup, rules: tuple[DeviceRule, ...]) -> None:
    """Allow what `rules`, and then the ones every container has, allow; raise KernelFault or CgroupFault where it cannot be.

    What was set before is replaced, on v2 at once, on v1 without forbidding for a moment what stays allowed.
    """
    policy = device_policy(rules)
    directory = group.directory("devices")
    unified = group.directory(UNIFIED)
    if directory is not None:
        for write in device_changes(policy, files.read(directory, "devices.list")):
            group.write(write)
    elif unified is not None:
        _attach(unified, policy)
    else:
        raise KernelFault(
            "this host has no device cgroup to keep the container from its devices",
            feature="device cgroup",
            step="limit the container",
        )


def _attach(directory: str, policy: DevicePolicy) -> None:
    from runtime.kernel.bpf import attach_device_program, detach_device_program, load_device_program
    from runtime.plan.bpf import device_program

    try:
        if policy.allow and not policy.exceptions:
            detach_device_program(directory)
            return
        program = load_device_program(device_program(policy))
        try:
            attach_device_program(program, directory)
        finally:
            os.close(program)
    except OSError as error:
        raise CgroupFault.from_os(error, "attach the device filter", path=directory) from error
