"""The files of a pod: hostname, hosts and resolv.conf, which its containers mount."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from shim.container.spec.inputs import PodFiles
from shim.container.spec.pod_files import hostname_file, hosts_file, resolv_conf
from shim.container.spec.regular import read_regular

if TYPE_CHECKING:
    from shim.gen.runtime.v1.api_pb2 import PodSandboxConfig

LIMIT = 1 << 20
"""Bytes read of the node's own files."""


def write_pod_files(directory: str, config: PodSandboxConfig, host_hostname: str) -> None:
    """Write the pod's files below `directory`; raise InvalidArgument for a DNS configuration that cannot be written."""
    dns = config.dns_config if config.HasField("dns_config") else None
    contents = {
        "hostname": hostname_file(config, host_hostname),
        "hosts": hosts_file(_host_file("/etc/hosts")),
        "resolv.conf": resolv_conf(dns, _host_file("/etc/resolv.conf")),
    }
    os.makedirs(directory, 0o711, exist_ok=True)
    for name, content in contents.items():
        write_file(f"{directory}/{name}", content, 0o644)


def pod_files(directory: str, shm: str) -> PodFiles:
    """Give the paths of the pod's files."""
    return PodFiles(
        hostname=f"{directory}/hostname",
        hosts=f"{directory}/hosts",
        resolv_conf=f"{directory}/resolv.conf",
        shm=shm,
    )


def write_file(path: str, content: bytes, mode: int) -> None:
    """Write a new file or replace its content; not synced, because a lost file is made again."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with open(fd, "wb") as file:
        file.write(content)


async def remove_pod_files(directory: str) -> None:
    """Remove the pod's directory; harmless when it is gone."""
    shutil.rmtree(directory, ignore_errors=True)


def _host_file(path: str) -> bytes | None:
    try:
        return read_regular(path, LIMIT, follow=True)
    except OSError:
        return None
