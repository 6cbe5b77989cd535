"""Settings of the daemon that change what containers get."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.daemon import BUSYBOX

if TYPE_CHECKING:
    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

SETTINGS = """
[runtime]
unset_seccomp_profile = "runtime/default"
device_ownership_from_security_context = true
[runtime.handlers.bare]
privileged_without_host_devices = true
cgroup_writable = true
"""
MISUSE = "mknod /dev/mine c 1 11 && head -c 0 /dev/mine && echo opened; ls /dev; grep Seccomp: /proc/self/status"
"""The node's kernel log: a device that no container has by itself."""


def said(wherryd: Wherryd, pods: PodMaker, handler: str, script: str, *, privileged: bool = False, **fields: object) -> str:
    config = pods.pod()
    config.linux.security_context.privileged = privileged
    pod = wherryd.cri.run_pod(config, handler)
    order = pods.container(BUSYBOX, ["sleep", "1000"], **fields)
    order.linux.security_context.privileged = privileged
    container = wherryd.cri.create(pod, order, config)
    wherryd.cri.start(container)
    return wherryd.cri.execute(container, "sh", "-c", script).stdout.decode()


@pytest.mark.parametrize("wherryd", [{"extra": SETTINGS}], indirect=True)
def test_settings(wherryd: Wherryd, pods: PodMaker) -> None:
    lines = said(wherryd, pods, "wherry", MISUSE, privileged=True).split()
    assert "opened" in lines
    assert "kmsg" in lines
    assert lines[-2:] == ["Seccomp:", "0"]
    lines = said(wherryd, pods, "bare", MISUSE, privileged=True).split()
    assert "opened" not in lines
    assert "kmsg" not in lines
    assert "null" in lines
    device = api_pb2.Device(host_path="/dev/null", container_path="/dev/own", permissions="rw")
    linux = api_pb2.LinuxContainerConfig()
    linux.security_context.run_as_user.value = linux.security_context.run_as_group.value = 1000
    script = "stat -c %u:%g /dev/own; grep Seccomp: /proc/self/status | tr -s '\\t' ' '; cat /proc/mounts"
    for handler, access in (("wherry", "ro,"), ("bare", "rw,")):
        owner, seccomp, *mounts = said(wherryd, pods, handler, script, devices=[device], linux=linux).splitlines()
        assert (owner, seccomp) == ("1000:1000", "Seccomp: 2")
        options = {line.split()[3][:3] for line in mounts if line.split()[2] in {"cgroup", "cgroup2"}}
        assert options == {access}
