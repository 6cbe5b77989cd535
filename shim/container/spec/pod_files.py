"""The content of a pod's hostname, hosts and resolv.conf."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shim.gen.runtime.v1.api_pb2 import DNSConfig, PodSandboxConfig


def hostname_file(pod: PodSandboxConfig, host_hostname: str) -> bytes:
    """Give /etc/hostname: the pod's name for itself, or the node's when it brings none."""
    raise NotImplementedError


def hosts_file(host_hosts: bytes | None) -> bytes:
    """Give /etc/hosts from the node's own (None: the node has none); kubelet mounts its own over it."""
    raise NotImplementedError


def resolv_conf(dns: DNSConfig | None, host_resolv_conf: bytes | None) -> bytes:
    """Give /etc/resolv.conf; without a DNSConfig the node's is copied. Raises InvalidArgument for what would inject lines."""
    raise NotImplementedError
