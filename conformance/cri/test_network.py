"""A pod's network: its addresses, ports of the node that lead to it, what its interfaces have carried."""

from __future__ import annotations

import ipaddress
import re
import socket
import subprocess
import sys
import time
from contextlib import closing, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.registry import free_port
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from conformance.cri.subject import Pod, Subject

PORT = 7018
LOOPBACK = "127.0.0.1"
OTHER_LOOPBACK = "127.0.0.2"


@pytest.fixture(scope="module")
def networked(endpoint: Subject) -> tuple[Pod, str]:
    """Give a pod with a network of its own, and a container in it that may change it."""
    config = endpoint.pod(network=True)
    config.linux.security_context.privileged = True
    pod = endpoint.run_config(config)
    order = pod.order()
    order.linux.security_context.privileged = True
    container = endpoint.cri.create(pod.id, order, config)
    endpoint.cri.start(container)
    return pod, container


def _sh(subject: Subject, container: str, script: str) -> str:
    found = subject.cri.execute(container, "sh", "-c", script)
    assert found.exit_code == 0, found.stderr
    return str(found.stdout.decode())


def test_every_address_is_told(subject: Subject, networked: tuple[Pod, str]) -> None:
    pod, container = networked
    shown = _sh(subject, container, "ip -o addr show dev eth0 scope global")
    inside = {ipaddress.ip_interface(found).ip for found in re.findall(r"inet6? (\S+)", shown)}
    network = subject.cri.pod_status(pod.id).network
    told = [ipaddress.ip_address(network.ip), *(ipaddress.ip_address(one.ip) for one in network.additional_ips)]
    assert len(told) == len(set(told))
    assert set(told) == inside


def _answers(address: str, port: int) -> bytes:
    with closing(socket.create_connection((address, port), timeout=5)) as connection:
        return connection.recv(100)


@pytest.mark.parametrize("address", ["", LOOPBACK])
def test_port_of_the_node(subject: Subject, address: str) -> None:
    port = free_port()
    mapping = api_pb2.PortMapping(protocol=api_pb2.TCP, container_port=PORT, host_port=port, host_ip=address)
    pod = subject.run(network=True, port_mappings=[mapping])
    container = pod.run(("sh", "-c", f"exec nc -ll -p {PORT} -e echo mapped"))
    _until_listening(subject, container)
    assert _answers(LOOPBACK, port) == b"mapped\n"
    if address:
        with pytest.raises(OSError, match=r"refused|timed out"):
            _answers(OTHER_LOOPBACK, port)
    subject.cri.remove_pod(pod.id)
    with pytest.raises(OSError, match=r"refused|timed out"):
        _answers(LOOPBACK, port)


def _until_listening(subject: Subject, container: str) -> None:
    wait_for(lambda: f":{PORT:04X} " in _sh(subject, container, "cat /proc/net/tcp*"), "a listener", seconds=10)


RECEIVER = f"""
import socket
receiver = socket.socket(type=socket.SOCK_DGRAM)
receiver.bind(("", {PORT}))
receiver.settimeout(20)
print("ready", flush=True)
print(receiver.recvfrom(100)[0].decode(), flush=True)
"""


def test_datagrams_to_a_port_of_the_node(subject: Subject) -> None:
    port = free_port()
    mapping = api_pb2.PortMapping(protocol=api_pb2.UDP, container_port=PORT, host_port=port)
    pid = subject.cri.info(subject.run(network=True, port_mappings=[mapping]).run())["pid"]
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", RECEIVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "ready\n"
        with closing(socket.socket(type=socket.SOCK_DGRAM)) as sender:
            sender.sendto(b"datagram", (LOOPBACK, port))
        assert receiver.stdout.readline() == "datagram\n"


def test_two_pods_cannot_have_one_port(subject: Subject) -> None:
    """Whether the second is refused or waits in vain, the first keeps its port."""
    port = free_port()
    mapping = api_pb2.PortMapping(protocol=api_pb2.TCP, container_port=PORT, host_port=port, host_ip=LOOPBACK)
    container = subject.run(network=True, port_mappings=[mapping]).run(("sh", "-c", f"exec nc -ll -p {PORT} -e echo first"))
    _until_listening(subject, container)
    with suppress(grpc.RpcError):
        subject.run(network=True, port_mappings=[mapping])
    assert _answers(LOOPBACK, port) == b"first\n"


def _network(subject: Subject, pod: Pod) -> api_pb2.NetworkUsage:
    request = api_pb2.PodSandboxStatsRequest(pod_sandbox_id=pod.id)
    answer: api_pb2.PodSandboxStatsResponse = subject.cri.runtime.PodSandboxStats(request, timeout=10)
    return answer.stats.linux.network


@pytest.mark.parametrize("name", ["rx_bytes", "tx_bytes", "rx_errors", "tx_errors"])
def test_interface_tells(subject: Subject, networked: tuple[Pod, str], name: str) -> None:
    pod, container = networked
    wait_for(lambda: _network(subject, pod).default_interface.HasField(name), f"{name} to be told", seconds=15)
    found = _network(subject, pod)
    assert found.default_interface.name == "eth0"
    statistics = {"bytes": "bytes", "errors": "errors"}[name.partition("_")[2]]
    inside = int(_sh(subject, container, f"cat /sys/class/net/eth0/statistics/{name[:2]}_{statistics}"))
    assert getattr(found.default_interface, name).value <= inside


def test_network_is_told_with_its_time(subject: Subject, networked: tuple[Pod, str]) -> None:
    wait_for(lambda: _network(subject, networked[0]).default_interface.name, "the network to be told", seconds=15)
    assert abs(time.time_ns() - _network(subject, networked[0]).timestamp) < 600 * 10**9


def test_sent_bytes_grow(subject: Subject, networked: tuple[Pod, str]) -> None:
    pod, container = networked
    before = _network(subject, pod).default_interface.tx_bytes.value
    gateway = _sh(subject, container, "ip route | grep default | cut -d' ' -f3").strip()
    _sh(subject, container, f"ping -c 3 -i 0.2 -s 1000 {gateway} || true")
    wait_for(lambda: _network(subject, pod).default_interface.tx_bytes.value > before + 2000, "tx_bytes to grow", seconds=20)


def test_other_interfaces_are_told_once(subject: Subject, networked: tuple[Pod, str]) -> None:
    pod, container = networked
    _sh(subject, container, "ip link show dev other0 >/dev/null 2>&1 || ip link add name other0 type bridge")
    wait_for(lambda: "other0" in [one.name for one in _network(subject, pod).interfaces], "other0 to be told", seconds=20)
    found = _network(subject, pod)
    names = [one.name for one in found.interfaces]
    assert len(names) == len(set(names))


CIDRS = ("10.197.0.0/16", "10.197.0.0/16,fd00:c5::/64")


@pytest.mark.parametrize("cidr", [*CIDRS, "garbage", "10.0.0.0/99"])
def test_range_of_the_node(subject: Subject, cidr: str) -> None:
    """Whoever has a use for it takes it, others leave it; the network stays ready, with or without a refusal of garbage."""
    config = api_pb2.RuntimeConfig(network_config=api_pb2.NetworkConfig(pod_cidr=cidr))
    request = api_pb2.UpdateRuntimeConfigRequest(runtime_config=config)
    for _ in range(2):
        with nullcontext() if cidr in CIDRS else suppress(grpc.RpcError):
            subject.cri.runtime.UpdateRuntimeConfig(request, timeout=10)
    conditions: list[Any] = list(subject.cri.runtime.Status(api_pb2.StatusRequest(), timeout=5).status.conditions)
    assert {one.type: one.status for one in conditions}["NetworkReady"] is True
