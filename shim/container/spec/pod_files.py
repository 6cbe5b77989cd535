"""The content of a pod's hostname, hosts and resolv.conf."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from shim.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shim.gen.runtime.v1.api_pb2 import DNSConfig, PodSandboxConfig

LIMIT = 1 << 20  # bytes of a node's file that are copied
# hostname(7), 64 bytes at most; with a dot at its end where kubelet knows no cluster domain and gives the whole name
HOSTNAME = re.compile(r"(?!.{65})[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?", re.ASCII)
WORD = re.compile(r"[\x21-\x7e]+", re.ASCII)
DEFAULT_HOSTS = b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def hostname_file(pod: PodSandboxConfig, host_hostname: str) -> bytes:
    """Give /etc/hostname: the pod's name for itself, or the node's when it brings none."""
    return f"{check_hostname(pod.hostname) or host_hostname}\n".encode()


def check_hostname(name: str) -> str:
    """Give `name`; raise InvalidArgument when the kernel or a file of one name a line could not hold it."""
    if name and not HOSTNAME.fullmatch(name):
        raise InvalidArgument(f"hostname {name!r} is no host name of at most 64 letters, digits, '-', '_' and '.'")
    return name


def hosts_file(host_hosts: bytes | None) -> bytes:
    """Give /etc/hosts from the node's own (None: the node has none); kubelet mounts its own over it."""
    if host_hosts is None:
        return DEFAULT_HOSTS
    return _bounded(host_hosts, "/etc/hosts")


def resolv_conf(dns: DNSConfig | None, host_resolv_conf: bytes | None) -> bytes:
    """Give /etc/resolv.conf; without a DNSConfig the node's is copied, with an empty one the file is empty.

    Raises InvalidArgument for words that would start a new word or line (resolv.conf(5)).
    """
    if dns is None:
        return _bounded(host_resolv_conf or b"", "/etc/resolv.conf")
    lines = []
    if dns.searches:
        lines.append("search " + " ".join(_words(dns.searches, "dns_config.searches")))
    lines += [f"nameserver {server}" for server in _words(dns.servers, "dns_config.servers")]
    if dns.options:
        lines.append("options " + " ".join(_words(dns.options, "dns_config.options")))
    return "".join(line + "\n" for line in lines).encode()


def _words(words: Iterable[str], field: str) -> list[str]:
    checked = list(words)
    for index, word in enumerate(checked):
        if not WORD.fullmatch(word):
            raise InvalidArgument(f"{field}[{index}] {word!r} is empty or holds spaces or control characters")
    return checked


def _bounded(data: bytes, path: str) -> bytes:
    if len(data) > LIMIT:
        raise InvalidArgument(f"{path} of the node is longer than {LIMIT} bytes; give the pod a file of its own")
    return data
