"""Which namespaces a pod owns, from its NamespaceOption."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shim.errors import InvalidArgument
from shim.gen.runtime.v1 import api_pb2
from shim.monitor.protocol import IdMap, NamespaceRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.gen.runtime.v1.api_pb2 import NamespaceOption, PodSandboxConfig


def options(config: PodSandboxConfig) -> NamespaceOption:
    """Give the pod's namespace options; absent ones are POD for everything."""
    return config.linux.security_context.namespace_options


def namespace_request(config: PodSandboxConfig, netns: str, sysctls: Mapping[str, str], hostname: str) -> NamespaceRequest:
    """Say what the monitor has to make; `netns` is the pin, "" for a host-network pod, which has the node's host name too."""
    modes = options(config)
    uids, gids = id_maps(modes)
    return NamespaceRequest(
        net_pin=netns,
        ipc=modes.ipc == api_pb2.POD,
        uts=bool(netns),
        pid=modes.pid == api_pb2.POD,
        uid_maps=uids,
        gid_maps=gids,
        hostname=hostname if netns else "",
        sysctls=dict(sysctls),
    )


def id_maps(modes: NamespaceOption) -> tuple[tuple[IdMap, ...], tuple[IdMap, ...]]:
    """Give the maps of the pod's user namespace; empty without one. Raises InvalidArgument for a contradiction."""
    userns = modes.userns_options
    if not modes.HasField("userns_options") or userns.mode == api_pb2.NODE:
        if userns.uids or userns.gids:
            raise InvalidArgument("namespace_options.userns_options: mode NODE must come without uids and gids")
        return (), ()
    if userns.mode != api_pb2.POD:
        raise InvalidArgument("namespace_options.userns_options.mode must be POD or NODE")
    if not userns.uids or not userns.gids:
        raise InvalidArgument("namespace_options.userns_options: mode POD needs uids and gids")
    return _maps(userns.uids), _maps(userns.gids)


def _maps(mappings: object) -> tuple[IdMap, ...]:
    return tuple(
        IdMap(container_id=mapping.container_id, host_id=mapping.host_id, size=mapping.length)
        for mapping in mappings  # type: ignore[attr-defined]  # a repeated IDMapping
    )
