"""The pod network's side of a spawner job: one CNI verb in a disposable process that may enter namespaces and be killed.

Parameters: `action` (add, delete, check, status, gc), `settings` (conf_dir, bin_dirs, cache_dir, prefer_embedded,
default_subnets, default_bridge, timeout) and, for the first three, `attachment` (container_id, netns, ifname, args,
capabilities); `network` names the network that a delete or check is about, as ADD's reply gave it; `valid` lists what a gc
has to leave alone, as pairs of container id and interface name.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from cni import conflist, plugins, wire
from cni.client import Attachment, Client
from cni.conflist import NetworkList
from cni.errors import CniFault, Code, ConfigFault, PluginFault, PluginTimeout
from shim.errors import UNDONE, DeadlineExceeded, FailedPrecondition, InvalidArgument, Unavailable, WherryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.types import Result


plugins.preload()  # the spawner imports this module once; a job forked later finds everything warm


class NetworkError(WherryError):
    """A plugin refused; its message is for the person who looks at the pod's events."""


def run(params: dict[str, Any], _fds: list[int], _report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Carry the action out; an ADD gives the network's name, the pod's addresses, primary first, and the result as JSON."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a plugin that dies without reading its input is an error, not our end
    try:
        client, network = _network(params["settings"], params.get("network", ""))
        if params["action"] == "gc":
            client.gc(network, [(one, ifname) for one, ifname in params["valid"]])
            return {}
        return _act(params["action"], client, network, params.get("attachment"))
    except PluginTimeout as fault:
        raise DeadlineExceeded(f"network: {_text(fault)}") from fault
    except CniFault as fault:
        error = _kind(fault)(f"network: {_text(fault)}")
        error.details = {UNDONE: params["action"] == "add" and not getattr(fault, "__notes__", ())}
        raise error from fault


def _kind(fault: CniFault) -> type[WherryError]:
    """Say whose fault it is: the node's (no plugin, no good configuration), nobody's (later, perhaps), or a plugin's word."""
    if fault.code in {Code.TRY_AGAIN_LATER, Code.PLUGIN_NOT_AVAILABLE_LIMITED} or (
        isinstance(fault, PluginFault) and fault.code == Code.PLUGIN_NOT_AVAILABLE
    ):
        return Unavailable
    if fault.code in {Code.PLUGIN_NOT_AVAILABLE, Code.INVALID_CONFIG, Code.INCOMPATIBLE_VERSION}:
        return FailedPrecondition
    return NetworkError


def _text(fault: CniFault) -> str:
    return "; ".join([str(fault), *getattr(fault, "__notes__", ())])


def _network(settings: dict[str, Any], name: str) -> tuple[Client, NetworkList]:
    """Give the node's network, or, when it is another one than `name` by now, that one as the cache remembers it."""
    bundled = bool(settings["default_subnets"]) and not conflist.files(settings["conf_dir"])
    client = Client(
        settings["conf_dir"],
        settings["bin_dirs"],
        settings["cache_dir"],
        prefer_embedded=bundled or settings["prefer_embedded"],
        timeout=settings["timeout"],
    )
    remembered = NetworkList(name=name, versions=("1.0.0",), plugins=())
    try:
        network = _bundled(client, settings) if bundled else client.load()
    except ConfigFault:
        if not name:
            raise
        return client, remembered
    return client, network if name in {"", network.name} else remembered


def _bundled(client: Client, settings: dict[str, Any]) -> NetworkList:
    return client.default_network(
        settings["default_subnets"],
        bridge=settings["default_bridge"],
        data_dir=f"{settings['cache_dir']}/networks",
    )


def _act(action: str, client: Client, network: NetworkList, attachment: dict[str, Any] | None) -> dict[str, Any]:
    if action == "status":
        client.status(network)
        return {}
    if attachment is None:
        raise InvalidArgument(f"network job {action} came without an attachment")
    target = Attachment(**attachment)
    if action == "add":
        return {"network": network.name, **_describe(client.add(network, target), target.ifname)}
    if action == "delete":
        client.delete(network, target)
    elif action == "check":
        client.check(network, target)
    else:
        raise InvalidArgument(f"network job has no action {action!r}")
    return {}


def _describe(result: Result, ifname: str) -> dict[str, Any]:
    ips = pod_ips(result, ifname)
    if not ips:
        raise Unavailable("network: the plugins gave the pod no address")
    return {"ips": ips, "result": wire.write_result(result)}


def pod_ips(result: Result, ifname: str) -> list[str]:
    """Give the addresses of the pod's own interface, the first IPv4 one first as kubelet's single-stack callers expect."""
    names = [interface.name if interface.sandbox else "" for interface in result.interfaces]
    ours = [
        config.address.ip
        for config in result.ips
        if config.interface is None or (config.interface < len(names) and names[config.interface] == ifname)
    ]
    chosen = ours or [config.address.ip for config in result.ips]
    primary = next((ip for ip in chosen if ip.version == 4), None)
    ordered = chosen if primary is None else [primary, *(ip for ip in chosen if ip != primary)]
    return [str(ip) for ip in ordered]
