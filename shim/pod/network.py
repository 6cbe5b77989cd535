"""The pod network as the daemon sees it: is it ready, attach a pod, detach it. The work is done in spawner jobs."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from shim.errors import DeadlineExceeded, InvalidArgument, WherryError
from shim.pod.capabilities import capabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from shim.config import Config
    from shim.store.pods import Pod

log = structlog.get_logger()

IFNAME = "eth0"
KILL_SECONDS = 5.0
"""Time beyond the plugins' own that a job has, to kill them and to undo."""
COLLECT_SECONDS = 10.0
"""Time the plugins have for GC: the daemon serves only afterwards."""
STATUS_SECONDS = 10.0
"""Age from which the plugins' own STATUS is asked again."""


class Jobs(Protocol):
    """The part of the spawner's client that is used here."""

    async def job(
        self,
        kind: str,
        params: dict[str, Any],
        *,
        fds: Sequence[int] = (),
        timeout: float | None,  # noqa: ASYNC109 - the job is killed by it
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Run a job to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """What ADD gave: the network's name, addresses, primary first, and the result as JSON text."""

    name: str
    ips: tuple[str, ...]
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """The NetworkReady condition."""

    ready: bool
    reason: str = ""
    message: str = ""


READY = Readiness(ready=True)


class PodNetwork:
    """Attaches pods to the node's network."""

    def __init__(self, config: Config, jobs: Jobs) -> None:
        self._config = config
        self._jobs = jobs
        self._subnets = config.cni.default_subnets if config.cni.default_network else ()
        self._status = READY
        self._status_at = 0.0
        self._status_task: asyncio.Task[None] | None = None

    def use_pod_cidr(self, cidrs: tuple[str, ...]) -> None:
        """Give pods of the bundled network their addresses from the node's pod CIDR."""
        if self._subnets:
            self._subnets = cidrs

    async def attach(self, pod: Pod) -> Attached:
        """Run ADD for a pod; raise what the plugins said, DeadlineExceeded when they hang. The caller undoes by `detach`."""
        reply = await self._job("add", self._attachment(pod, pod.meta.netns), handler=pod.meta.handler)
        return Attached(name=reply["network"], ips=tuple(reply["ips"]), result=json.dumps(reply["result"]))

    async def detach(self, pod: Pod) -> None:
        """Run DEL for a pod; without its namespace (after a reboot) the plugins still free its addresses."""
        netns = pod.meta.netns if _exists(pod.meta.netns) else ""
        await self._job("delete", self._attachment(pod, netns), pod.status.network_name, handler=pod.meta.handler)

    async def collect(self, pods: Iterable[Pod]) -> None:
        """Run GC: free what attachments other than those of `pods` still hold, such as addresses from before a reboot.

        Nothing may be attached meanwhile. Raises what the plugins said; a node without a network has nothing to free.
        """
        valid = [[pod.id, IFNAME] for pod in pods if pod.status.network]
        if self._subnets or configured(self._config.cni.conf_dir):
            await self._job("gc", None, valid=valid, seconds=COLLECT_SECONDS)
        for name, handler in self._config.runtime.handlers.items():
            if handler.cni_conf_dir and configured(handler.cni_conf_dir):
                await self._job("gc", None, valid=valid, seconds=COLLECT_SECONDS, handler=name)

    def readiness(self) -> Readiness:
        """Give the NetworkReady condition from memory and a look at the configuration directory; never waits."""
        cni = self._config.cni
        if not self._subnets and not configured(cni.conf_dir):
            message = f"Network plugin returns error: cni plugin not initialized: no network configuration in {cni.conf_dir}"
            return Readiness(ready=False, reason="NetworkPluginNotReady", message=message)
        if time.monotonic() - self._status_at > STATUS_SECONDS and (self._status_task is None or self._status_task.done()):
            self._status_task = asyncio.create_task(self.refresh())
        return self._status

    async def refresh(self) -> None:
        """Ask the plugins whether they can serve an ADD, for the next `readiness`."""
        if not self._subnets and not configured(self._config.cni.conf_dir):
            return
        try:
            await self._job("status", None)
            self._status = READY
        except WherryError as error:
            message = f"Network plugin returns error: {error}"
            self._status = Readiness(ready=False, reason="NetworkPluginNotReady", message=message)
        self._status_at = time.monotonic()

    def close(self) -> None:
        """Stop asking."""
        if self._status_task is not None:
            self._status_task.cancel()

    async def _job(
        self,
        action: str,
        attachment: dict[str, Any] | None,
        network: str = "",
        *,
        valid: Any = (),
        seconds: float = 0.0,
        handler: str = "",
    ) -> dict[str, Any]:
        cni = self._config.cni
        own = self._conf_dir_of(handler)
        limit = min(cni.timeout, seconds or cni.timeout)
        settings = {
            "conf_dir": own or cni.conf_dir,
            "bin_dirs": cni.bin_dirs,
            "cache_dir": self._config.cni_cache_dir,
            "prefer_embedded": cni.prefer_embedded,
            "default_subnets": () if own else self._subnets,
            "default_bridge": cni.default_bridge,
            "timeout": limit,
        }
        params = {"action": action, "settings": settings, "attachment": attachment, "network": network, "valid": valid}
        try:
            return await self._jobs.job("cni", params, timeout=limit + KILL_SECONDS)
        except DeadlineExceeded as error:
            if str(error).startswith("network:"):  # the job itself has named the plugin that hangs
                raise
            raise DeadlineExceeded(f"network: the plugins did not finish {action} within {limit:g} s") from error

    def _conf_dir_of(self, handler: str) -> str:
        """Give the directory of a handler's own network; empty: its pods are on the node's."""
        found = self._config.runtime.handler(handler)
        return found.cni_conf_dir if found is not None else ""

    def _attachment(self, pod: Pod, netns: str) -> dict[str, Any]:
        metadata = pod.config.metadata
        arguments = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": metadata.namespace,
            "K8S_POD_NAME": metadata.name,
            "K8S_POD_INFRA_CONTAINER_ID": pod.id,
            "K8S_POD_UID": metadata.uid,
        }
        return {
            "container_id": pod.id,
            "netns": netns,
            "ifname": IFNAME,
            "args": arguments,
            "capabilities": capabilities(pod.config),
        }


def _exists(path: str) -> bool:
    return os.path.exists(path)


def configured(conf_dir: str) -> bool:
    """Say whether a network configuration is there."""
    try:
        return any(name.endswith((".conf", ".conflist", ".json")) for name in os.listdir(conf_dir))
    except OSError:
        return False


def parse_cidrs(text: str) -> tuple[str, ...]:
    """Split kubelet's pod CIDR (one, or two with a comma); raise InvalidArgument for what is no network."""
    cidrs = tuple(part.strip() for part in text.split(","))
    try:
        return tuple(str(ipaddress.ip_network(cidr)) for cidr in cidrs)
    except ValueError as error:
        raise InvalidArgument(f"runtime_config.network_config.pod_cidr: {error}") from error


def render_template(template: str, cidrs: tuple[str, ...]) -> str:
    """Fill a configuration template in: {{.PodCIDR}} (the first), {{.PodCIDRRanges}} and {{.Routes}} as JSON for host-local."""
    ranges = [[{"subnet": cidr}] for cidr in cidrs]
    routes = [{"dst": "::/0" if ":" in cidr else "0.0.0.0/0"} for cidr in cidrs]
    values = {"{{.PodCIDR}}": cidrs[0], "{{.PodCIDRRanges}}": json.dumps(ranges), "{{.Routes}}": json.dumps(routes)}
    for name, value in values.items():
        template = template.replace(name, value)
    return template
