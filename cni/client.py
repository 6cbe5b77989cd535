"""The CNI client: a network is attached to a container, detached, checked; what is stale is collected.

Synchronous, for a disposable single-threaded process: bundled plugins run in this process and enter the container's network
namespace and come back. A failed ADD leaves nothing: what had been done is undone by DEL before the fault is raised.

Source: CNI specification 1.1 section 3 (execution of network configurations).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from cni import cache, conflist, default, skel, wire
from cni import version as versions
from cni.errors import CniFault, Code
from cni.executor import DEFAULT_TIMEOUT_SECONDS, Executor
from cni.skel import Invocation
from cni.types import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cni.conflist import NetworkList, PluginConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One interface of one container in one network.

    `netns` is a path ("" when the namespace is gone, for DEL only). `args` become CNI_ARGS, in their order, after
    IgnoreUnknown=1. `capabilities` are the capability arguments by name; a plugin gets those that its configuration declares.
    """

    container_id: str
    netns: str = ""
    ifname: str = "eth0"
    args: Mapping[str, str] = field(default_factory=dict)
    capabilities: Mapping[str, Any] = field(default_factory=dict)


def kubernetes_args(*, namespace: str, name: str, uid: str, container_id: str) -> dict[str, str]:
    """Give the CNI_ARGS by which Kubernetes plugins learn about the pod."""
    return {
        "K8S_POD_NAMESPACE": namespace,
        "K8S_POD_NAME": name,
        "K8S_POD_INFRA_CONTAINER_ID": container_id,
        "K8S_POD_UID": uid,
    }


class Client:
    """Run networks from `conf_dir` with plugins from `bin_dirs`; remember results in `cache_dir`.

    `prefer_embedded` runs bundled plugins even when a binary exists; `timeout` (seconds) bounds each plugin program.
    """

    def __init__(
        self,
        conf_dir: str,
        bin_dirs: Sequence[str],
        cache_dir: str,
        *,
        prefer_embedded: bool = False,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
    ) -> None:
        self._conf_dir = conf_dir
        self._cache = cache.Cache(cache_dir)
        self._executor = Executor(bin_dirs, prefer_embedded=prefer_embedded, timeout=timeout)
        self._bundled = Executor((), prefer_embedded=True)

    def load(self) -> NetworkList:
        """Load the node's network from the configuration directory; raise ConfigFault when there is none or it is wrong."""
        return conflist.load_directory(self._conf_dir)

    @staticmethod
    def default_network(subnets: Sequence[str] = default.SUBNETS, **options: Any) -> NetworkList:
        """Give the bundled network (see cni.default.network for the options)."""
        return default.network(subnets, **options)

    def add(self, network: NetworkList, attachment: Attachment) -> Result:
        """Attach; raise CniFault after undoing everything when a plugin fails.

        All plugins are looked for before the first is run: one that is missing could not undo its part, and hides no other's.
        """
        _check(attachment, needs_netns=True)
        for plugin in network.plugins:
            self._executor.find(plugin.type)
        call = _Call(self._executor, network, attachment, self._negotiate(network))
        self._loopback(attachment)
        try:
            for count, plugin in enumerate(network.plugins):
                call.done = network.plugins[: count + 1]
                call.result = call.run("ADD", plugin)
            result = call.result or Result()
            self._cache.save(_entry(network, attachment, result), call.version)
        except Exception as fault:
            for note in call.undo():
                fault.add_note(note)
            self._cache.forget(network.name, attachment.container_id, attachment.ifname)
            raise
        return result

    def delete(self, network: NetworkList, attachment: Attachment) -> None:
        """Detach, in reverse order; done twice is no error, nor is a namespace that is gone.

        Configuration, arguments and result of ADD come from the cache when it has them. Every plugin is run even when an
        earlier one fails; then the first fault is raised with the others as notes, and the cache keeps the attachment.
        """
        _check(attachment, needs_netns=False)
        entry = self._cache.load(network.name, attachment.container_id, attachment.ifname)
        network, attachment = _remembered(entry, network, attachment)
        call = _Call(self._executor, network, attachment, self._negotiate(network))
        call.result = entry.result if entry else None
        call.done = network.plugins
        faults = call.delete_all()
        if faults:
            for other in faults[1:]:
                faults[0].add_note(str(other))
            raise faults[0]
        self._cache.forget(network.name, attachment.container_id, attachment.ifname)

    def check(self, network: NetworkList, attachment: Attachment) -> None:
        """Compare the attachment with what ADD answered; raise CniFault naming what differs, or when nothing is remembered."""
        _check(attachment, needs_netns=True)
        entry = self._cache.load(network.name, attachment.container_id, attachment.ifname)
        network, attachment = _remembered(entry, network, attachment)
        version = self._negotiate(network)
        if network.disable_check or not versions.at_least(version, versions.CHECK_SINCE):
            return
        if entry is None:
            who = f"{attachment.container_id}/{attachment.ifname}"
            raise CniFault(f"{who} is not known to network {network.name}: add it first", code=Code.UNKNOWN_CONTAINER)
        call = _Call(self._executor, network, attachment, version)
        call.result = entry.result
        for plugin in network.plugins:
            call.run("CHECK", plugin)

    def gc(self, network: NetworkList, valid: Iterable[tuple[str, str]]) -> None:
        """Detach what is remembered but not in `valid` (container id, interface name), then let every plugin collect.

        All of it is tried; the first fault is raised at the end with the others as notes.
        """
        keep = frozenset(valid)
        faults: list[CniFault] = []
        for entry in list(self._cache.entries(network.name)):
            if (entry.container_id, entry.ifname) not in keep:
                stale = Attachment(container_id=entry.container_id, ifname=entry.ifname)
                _try(faults, partial(self.delete, network, stale))
        version = self._negotiate(network)
        if not network.disable_gc and versions.at_least(version, versions.GC_SINCE):
            extra = {"cni.dev/valid-attachments": [{"containerID": one, "ifname": name} for one, name in sorted(keep)]}
            for plugin in network.plugins:
                config = _config(network, plugin, version) | extra
                invocation = Invocation(plugin=plugin.type, command="GC", config=config)
                _try(faults, partial(self._executor.run, invocation))
        if faults:
            for other in faults[1:]:
                faults[0].add_note(str(other))
            raise faults[0]

    def status(self, network: NetworkList) -> None:
        """Raise CniFault (codes 50, 51 or a plugin's own) when the network cannot take attachments now."""
        for plugin in network.plugins:
            for kind in _kinds(plugin):
                self._executor.find(kind)
        version = self._negotiate(network)
        if not versions.at_least(version, versions.STATUS_SINCE):
            return
        for plugin in network.plugins:
            self._executor.run(Invocation(plugin=plugin.type, command="STATUS", config=_config(network, plugin, version)))

    def _negotiate(self, network: NetworkList) -> str:
        if len(network.versions) == 1:
            return versions.highest(network.versions)
        kinds = {kind for plugin in network.plugins for kind in _kinds(plugin)}
        return versions.highest(network.versions, *(self._executor.versions(kind) for kind in sorted(kinds)))

    def _loopback(self, attachment: Attachment) -> None:
        """Bring `lo` up: every container has it, whatever its network."""
        config = {"cniVersion": versions.CURRENT, "name": "loopback", "type": "loopback"}
        self._bundled.run(
            Invocation(
                plugin="loopback",
                command="ADD",
                config=config,
                container_id=attachment.container_id,
                netns=attachment.netns,
                ifname="lo",
            )
        )


class _Call:
    """One attachment on its way through the plugins of its network."""

    def __init__(self, executor: Executor, network: NetworkList, attachment: Attachment, version: str) -> None:
        self._executor = executor
        self._network = network
        self._attachment = attachment
        self.version = version
        self.result: Result | None = None
        self.done: tuple[PluginConfig, ...] = ()

    def run(self, command: str, plugin: PluginConfig) -> Result | None:
        """Run one plugin with the result so far; give its own for ADD."""
        attachment = self._attachment
        config = _config(self._network, plugin, self.version)
        granted = {key: value for key, value in attachment.capabilities.items() if key in plugin.capabilities}
        if granted:
            config["runtimeConfig"] = granted
        if self.result is not None and (command == "ADD" or versions.at_least(self.version, versions.CHECK_SINCE)):
            config["prevResult"] = wire.write_result(self.result, self.version)
        answer = self._executor.run(
            Invocation(
                plugin=plugin.type,
                command=command,
                config=config,
                container_id=attachment.container_id,
                netns=attachment.netns,
                ifname=attachment.ifname,
                args=_args_text(attachment.args),
            )
        )
        return wire.read_result(answer, self.version) if command == "ADD" else None

    def delete_all(self) -> list[CniFault]:
        """Run DEL of the plugins in `done`, last first; give what failed."""
        faults: list[CniFault] = []
        for plugin in reversed(self.done):
            _try(faults, partial(self.run, "DEL", plugin))
        return faults

    def undo(self) -> list[str]:
        """Run DEL after a failed ADD; give a line for each part that could not be undone."""
        return [f"while undoing: {fault}" for fault in self.delete_all()]


def _try(faults: list[CniFault], step: Callable[[], object]) -> None:
    try:
        step()
    except CniFault as fault:
        faults.append(fault)


def _check(attachment: Attachment, *, needs_netns: bool) -> None:
    skel.check_identifiers(attachment.container_id, attachment.ifname)
    if needs_netns and not attachment.netns:
        raise CniFault(f"container {attachment.container_id} has no network namespace", code=Code.INVALID_ENVIRONMENT)
    _args_text(attachment.args)


def _args_text(args: Mapping[str, str]) -> str:
    pairs = {"IgnoreUnknown": "1", **args}
    for key, value in pairs.items():
        if ";" in key + value or "=" in key or "\0" in key + value:
            raise CniFault(
                f"argument {key!r} cannot be said in CNI_ARGS: it holds ';', '=' or zero", code=Code.INVALID_ENVIRONMENT
            )
    return ";".join(f"{key}={value}" for key, value in pairs.items())


def _config(network: NetworkList, plugin: PluginConfig, version: str) -> dict[str, Any]:
    return {**plugin.document, "name": network.name, "cniVersion": version}


def _kinds(plugin: PluginConfig) -> list[str]:
    """Give the plugin's type and that of the IPAM plugin it delegates to."""
    ipam = plugin.document.get("ipam")
    delegate = ipam.get("type") if isinstance(ipam, dict) else None
    return [plugin.type, delegate] if isinstance(delegate, str) and delegate else [plugin.type]


def _entry(network: NetworkList, attachment: Attachment, result: Result) -> cache.Entry:
    return cache.Entry(
        container_id=attachment.container_id,
        ifname=attachment.ifname,
        network=network.name,
        netns=attachment.netns,
        args=tuple(attachment.args.items()),
        capabilities=attachment.capabilities,
        config=network,
        result=result,
    )


def _remembered(entry: cache.Entry | None, network: NetworkList, attachment: Attachment) -> tuple[NetworkList, Attachment]:
    """Prefer the configuration and arguments of ADD; the namespace is the caller's, who knows whether it still exists."""
    if entry is None:
        return network, attachment
    attachment = dataclasses.replace(
        attachment,
        args=attachment.args or dict(entry.args),
        capabilities=attachment.capabilities or entry.capabilities,
    )
    return entry.config or network, attachment
