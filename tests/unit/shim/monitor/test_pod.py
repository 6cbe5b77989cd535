"""What a pod's namespaces are to be, before anything is made."""

from __future__ import annotations

import pytest

from shim.errors import InvalidArgument
from shim.monitor.pod import planned, sysctl_path
from shim.monitor.protocol import IdMap, NamespaceRequest


def test_only_what_is_asked_for() -> None:
    assert planned(NamespaceRequest(), "/s").paths == {}
    plan = planned(NamespaceRequest(net_pin="/run/netns/a", ipc=True, pid=True), "/s")
    assert plan.paths == {"network": "/run/netns/a", "ipc": "/s/ns/ipc", "pid": "/s/ns/pid"}
    assert plan.shm == "/s/shm"
    assert planned(NamespaceRequest(ipc=True, shm_size=0), "/s").shm == ""


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.5/forwarding", "net/ipv4/conf/eth0.5/forwarding"),
        ("net.ipv4.conf.eth0/5.forwarding", "net/ipv4/conf/eth0.5/forwarding"),
    ],
)
def test_sysctl_names(key: str, path: str) -> None:
    assert sysctl_path(key) == path


@pytest.mark.parametrize(
    "request_",
    [
        NamespaceRequest(sysctls={"net.ipv4.ip_forward": "1"}),
        NamespaceRequest(ipc=True, sysctls={"kernel.panic": "1"}),
        NamespaceRequest(net_pin="/x", sysctls={"kernel.shmmax": "1"}),
        NamespaceRequest(net_pin="/x", sysctls={"net/../kernel/panic": "1"}),
        NamespaceRequest(net_pin="/x", sysctls={"": "1"}),
        NamespaceRequest(hostname="a"),
        NamespaceRequest(net_pin="relative"),
        NamespaceRequest(uid_maps=(IdMap(container_id=0, host_id=0, size=1),)),
    ],
)
def test_contradictions_are_refused(request_: NamespaceRequest) -> None:
    """Above all: a sysctl of a namespace the pod does not own would change the node."""
    with pytest.raises(InvalidArgument):
        planned(request_, "/s")
