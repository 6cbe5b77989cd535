"""CNI capability arguments of a pod (CNI conventions, "Dynamic Plugin specific fields"); plugins get what they declare."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from shim.errors import InvalidArgument
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from shim.gen.runtime.v1.api_pb2 import PodSandboxConfig

INGRESS = "kubernetes.io/ingress-bandwidth"
EGRESS = "kubernetes.io/egress-bandwidth"
BURST = 2**31 - 1
"""Bits of burst that kubelet's own bandwidth support used to allow."""

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,3})|([numkMGTPE]|[KMGTPE]i)?)")
_SUFFIXES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60}


def capabilities(config: PodSandboxConfig) -> dict[str, Any]:
    """Give portMappings, bandwidth, dns and the pod's annotations and cgroup; raise InvalidArgument for a bad quantity."""
    values: dict[str, Any] = {"io.kubernetes.cri.pod-annotations": dict(config.annotations)}
    if mappings := port_mappings(config):
        values["portMappings"] = mappings
    if rates := bandwidth(config):
        values["bandwidth"] = rates
    dns = config.dns_config
    if dns.servers or dns.searches or dns.options:
        values["dns"] = {"servers": list(dns.servers), "searches": list(dns.searches), "options": list(dns.options)}
    if config.linux.cgroup_parent:
        values["cgroupPath"] = config.linux.cgroup_parent
    return values


def port_mappings(config: PodSandboxConfig) -> list[dict[str, Any]]:
    """Give the mappings that ask for a host port; raise InvalidArgument for a port that is none."""
    mappings = []
    for index, mapping in enumerate(config.port_mappings):
        for name in ("container_port", "host_port"):
            if not 0 <= getattr(mapping, name) <= 65535:
                raise InvalidArgument(f"config.port_mappings[{index}].{name} {getattr(mapping, name)} is no port")
        if not mapping.host_port:
            continue
        entry = {
            "hostPort": mapping.host_port,
            "containerPort": mapping.container_port,
            "protocol": api_pb2.Protocol.Name(mapping.protocol).lower(),
        }
        if mapping.host_ip:
            entry["hostIP"] = mapping.host_ip
        mappings.append(entry)
    return mappings


def bandwidth(config: PodSandboxConfig) -> dict[str, int]:
    """Give rates in bits a second from kubelet's annotations."""
    rates: dict[str, int] = {}
    for annotation, name in ((INGRESS, "ingress"), (EGRESS, "egress")):
        text = config.annotations.get(annotation)
        if text:
            rates[f"{name}Rate"] = parse_quantity(text, annotation)
            rates[f"{name}Burst"] = BURST
    return rates


def parse_quantity(text: str, where: str) -> int:
    """Read a Kubernetes quantity ("10M", "1Gi", "2e6") as a whole number, rounded up; raise InvalidArgument naming `where`."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"{where}: {text!r} is no quantity")
    number, exponent, suffix = match.groups()
    factor = float(f"1e{exponent}") if exponent else (_SUFFIXES | _BINARY).get(suffix or "", 1.0)
    value = float(number) * factor
    if not 0 < value < 2**63:
        raise InvalidArgument(f"{where}: {text!r} is out of range")
    return math.ceil(value)
