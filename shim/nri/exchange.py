"""Between handlers and plugins: what happens to pods and containers becomes requests, and answers are carried out.

`known` holds the ids of pods and containers whose removal plugins are to be told of, `live` those whose end is: each is told
once, whoever notices it first.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import structlog

from shim.container.status import image_of, runtime_spec
from shim.container.stop import LIVE, stop_container
from shim.container.update import update_limits
from shim.errors import NotFound, WherryError
from shim.gen.nri.v1alpha1 import api_pb2 as nri
from shim.nri.apply import Surroundings, apply
from shim.nri.errors import NriError
from shim.nri.messages import container_message, pod_message
from shim.nri.plugin import Plugin
from shim.nri.plugins import Plugins
from shim.nri.resources import from_cri, to_cri
from shim.rpc.node_status import software_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shim.gen.runtime.v1 import api_pb2 as cri
    from shim.nri.link import Link
    from shim.nri.plugins import Everything
    from shim.nri.service import Nri
    from shim.pod.node import Node
    from shim.store.containers import Container
    from shim.store.pods import Pod

log = structlog.get_logger()

FILE_SECONDS = 20.0


class Exchange:
    """The plugins of a node that has (or had) some."""

    def __init__(self, node: Node, owner: Nri) -> None:
        self._node = node
        self._owner = owner
        self._config = node.config.nri
        self.plugins = Plugins(self._config.request_timeout, self._config.default_validator)
        self._known: set[str] = set()
        self._live: set[str] = set()

    @property
    def busy(self) -> bool:
        """Whether there is a plugin, or one is joining."""
        return len(self.plugins) > 0 or self.plugins.lock.locked()

    # Coming and going

    def plugin(self, link: Link, *, index: str = "", base: str = "", config: str = "") -> Plugin:
        """Make a plugin of a new connection."""
        return Plugin(link, self._out_of_turn, index=index, base=base, config=config)

    async def join(self, plugin: Plugin) -> bool:
        """Let a plugin register and synchronize it; False, and the plugin is dropped, when it does not in its time."""
        seconds = self._config.registration_timeout
        try:
            await plugin.begin(seconds, self._config.request_timeout, software_version())
            updates = await self.plugins.join(plugin, self._everything, seconds)
        except (NriError, WherryError, OSError) as error:
            log.warning("a plugin of NRI is not served", plugin=plugin.name, error=str(error))
            plugin.drop()
            return False
        await self._carry_out(updates)
        return True

    def leave(self, plugin: Plugin) -> None:
        """Forget a plugin that is gone."""
        self.plugins.leave(plugin)
        log.info("a plugin of NRI is gone", plugin=plugin.name)
        if not len(self.plugins):
            self._known.clear()
            self._live.clear()

    async def _everything(self) -> Everything:
        """Give all there is, what is on its way included, and note what will end and be removed."""
        node, owner = self._node, self._owner
        made = {pod.id: pod for pod in node.pods if pod.status.ready_at and not pod.status.removing}
        pods = list((owner.pending_pods | made).values())
        stored = [one for one in node.containers if one.state in LIVE and not one.status.removing]
        stored = [one for one in stored if one.id not in owner.pending_containers]
        pending = list(owner.pending_containers.values())
        living = [pod.id for pod in pods if not pod.status.stopped_at or pod.status.namespaces or pod.status.network]
        containers = [one.id for one in stored] + [one.id for _, one, _ in pending]
        self._known |= {pod.id for pod in pods} | set(containers)
        self._live |= {*living, *containers}

        def tell() -> Everything:
            """Make the messages: there may be hundreds, and their files are read."""
            messages = [self._message(one, runtime_spec(node, one) or {}) for one in stored]
            messages += [self._message(one, json.loads(spec)) for _, one, spec in pending]
            return [pod_message(pod) for pod in pods], messages

        told: Everything = await self._in_thread(tell)
        return told

    # Pods

    async def run_pod(self, pod: Pod) -> None:
        """Tell that a pod is about to be ready; raise FailedPrecondition when a plugin refuses."""
        async with self.plugins.lock:
            self._owner.pending_pods[pod.id] = pod
            self._known.add(pod.id)
            self._live.add(pod.id)
            await self.plugins.tell(nri.RUN_POD_SANDBOX, nri.RunPodSandboxRequest(pod=pod_message(pod)))

    async def stop_pod(self, pod: Pod) -> None:
        """Tell that a pod has stopped, once."""
        async with self.plugins.lock:
            await self._pod_stopped(pod)

    async def _pod_stopped(self, pod: Pod) -> None:
        if pod.id in self._live:
            self._live.discard(pod.id)
            await self._report(nri.STOP_POD_SANDBOX, nri.StopPodSandboxRequest(pod=pod_message(pod)))

    async def remove_pod(self, pod: Pod) -> None:
        """Tell that a pod is removed, once; its stop comes first, also for a plugin that joined while it stopped."""
        async with self.plugins.lock:
            await self._pod_stopped(pod)
            if pod.id in self._known:
                self._known.discard(pod.id)
                await self._report(nri.REMOVE_POD_SANDBOX, nri.RemovePodSandboxRequest(pod=pod_message(pod)))

    async def update_pod(self, pod: Pod, overhead: cri.LinuxContainerResources, asked: cri.LinuxContainerResources) -> None:
        """Tell that the limits of a pod will change; raise FailedPrecondition when a plugin refuses."""
        request = nri.UpdatePodSandboxRequest(
            pod=pod_message(pod), overhead_linux_resources=from_cri(overhead), linux_resources=from_cri(asked)
        )
        async with self.plugins.lock:
            await self.plugins.tell(nri.UPDATE_POD_SANDBOX, request)

    async def post_update_pod(self, pod_id: str) -> None:
        """Tell that the limits of a pod have changed."""
        pod = self._node.pods.get(pod_id)
        async with self.plugins.lock:
            await self._report(nri.POST_UPDATE_POD_SANDBOX, nri.PostUpdatePodSandboxRequest(pod=pod_message(pod)))

    # Containers

    async def create(self, pod: Pod, container: Container, config: bytes) -> bytes:
        """Ask what to adjust of a container and give its config.json with that.

        Raises FailedPrecondition when a plugin refuses, when two want the same, or when a validator objects, and
        InvalidArgument for an adjustment that cannot be carried out.
        """
        async with self.plugins.lock:
            self._owner.pending_containers[container.id] = (pod, container, config)
            if len(self.plugins):  # there may be the node's own rules only
                self._known.add(container.id)
                self._live.add(container.id)
            message = self._message(container, json.loads(config))
            request = nri.CreateContainerRequest(pod=pod_message(pod), container=message)
            creation = await self.plugins.create(request)
            await self._carry_out(creation.updates.others, creation.evictions)
        adjusted: bytes = await self._in_thread(lambda: self._adjusted(config, creation.asked))
        self._owner.pending_containers[container.id] = (pod, container, adjusted)
        return adjusted

    def _adjusted(self, config: bytes, asked: nri.ContainerAdjustment) -> bytes:
        spec = json.loads(config)
        host = self._node.host
        surroundings = Surroundings(
            inject=self._node.cdi.inject,
            mountinfo=_mountinfo,
            swap=host.swap_controller,
            hugetlb=host.hugetlb_controller,
            oom_score_adj_floor=host.oom_score_adj_floor,
        )
        apply(spec, asked, surroundings)
        return json.dumps(spec, separators=(",", ":")).encode()

    async def undo(self, pod: Pod, container: Container, config: bytes) -> None:
        """Tell of the end and the removal of a container whose creation failed."""
        message = self._message(container, json.loads(config))
        async with self.plugins.lock:
            if container.id in self._known:
                await self._stopped(pod, message)
                self._known.discard(container.id)
                request = nri.RemoveContainerRequest(pod=pod_message(pod), container=message)
                await self._report(nri.REMOVE_CONTAINER, request)

    async def start(self, container_id: str) -> None:
        """Tell that a container is about to start; raise FailedPrecondition when a plugin refuses."""
        pod, message = await self._look(container_id)
        async with self.plugins.lock:
            await self.plugins.tell(nri.START_CONTAINER, nri.StartContainerRequest(pod=pod, container=message))

    async def created(self, container_id: str) -> None:
        """Tell that a container has been created."""
        await self._after(nri.POST_CREATE_CONTAINER, nri.PostCreateContainerRequest, container_id)

    async def started(self, container_id: str) -> None:
        """Tell that a container has started."""
        await self._after(nri.POST_START_CONTAINER, nri.PostStartContainerRequest, container_id)

    async def update(
        self, container_id: str, asked: cri.LinuxContainerResources
    ) -> tuple[cri.LinuxContainerResources, dict[str, Any]]:
        """Ask what to make of an update; give it in the CRI's words, and as linux.resources what those have no word for.

        Raises FailedPrecondition when a plugin refuses or two want the same.
        """
        pod, message = await self._look(container_id)
        request = nri.UpdateContainerRequest(pod=pod, container=message, linux_resources=from_cri(asked))
        async with self.plugins.lock:
            updates, evictions = await self.plugins.update(request)
            await self._carry_out(updates.others, evictions)
        wanted, extra = to_cri(updates.own)
        wanted.oom_score_adj = asked.oom_score_adj
        return wanted, extra

    async def updated(self, container_id: str) -> None:
        """Tell that the limits of a container have changed."""
        await self._after(nri.POST_UPDATE_CONTAINER, nri.PostUpdateContainerRequest, container_id)

    async def stopped(self, container_id: str) -> None:
        """Tell that a container has ended, once."""
        if container_id not in self._live:
            return
        try:
            pod, message = await self._look(container_id)
        except NotFound:
            return
        async with self.plugins.lock:
            await self._stopped(pod, message)

    async def removed(self, container_id: str) -> None:
        """Tell that a container is removed, once; its end comes first."""
        if container_id not in self._known:
            return
        pod, message = await self._look(container_id)
        async with self.plugins.lock:
            await self._stopped(pod, message)
            if container_id in self._known:
                self._known.discard(container_id)
                await self._report(nri.REMOVE_CONTAINER, nri.RemoveContainerRequest(pod=pod, container=message))

    async def _stopped(self, pod: nri.PodSandbox | Pod, message: nri.Container) -> None:
        if message.id not in self._live:
            return
        self._live.discard(message.id)
        told = pod if isinstance(pod, nri.PodSandbox) else pod_message(pod)
        try:
            updates = await self.plugins.stop(nri.StopContainerRequest(pod=told, container=message))
        except WherryError as error:
            log.warning("a plugin of NRI objects to an end", container=message.id, error=str(error))
            return
        await self._carry_out(updates.others)

    # Parts

    async def _after(self, event: int, request: Callable[..., Any], container_id: str) -> None:
        """Tell what has been done to a container, unless it is gone already."""
        try:
            pod, message = await self._look(container_id)
        except NotFound:
            return
        async with self.plugins.lock:
            await self._report(event, request(pod=pod, container=message))

    async def _report(self, event: int, request: Any) -> None:
        """Tell what cannot be refused any more."""
        try:
            await self.plugins.tell(event, request)
        except WherryError as error:
            log.warning("a plugin of NRI objects to what has happened", error=str(error))

    async def _look(self, container_id: str) -> tuple[nri.PodSandbox, nri.Container]:
        container = self._node.containers.get(container_id)
        try:
            spec = await self._in_thread(lambda: runtime_spec(self._node, container) or {})
        except WherryError as error:
            log.warning("plugins of NRI are told of a container without its config.json", id=container_id, error=str(error))
            spec = {}
        container = self._node.containers.get(container_id)  # it may have ended meanwhile
        pod = self._node.pods.find(container.pod_id)
        told = pod_message(pod) if pod is not None else nri.PodSandbox(id=container.pod_id)
        return told, self._message(container, spec)

    def _message(self, container: Container, spec: dict[str, Any]) -> nri.Container:
        return container_message(container, spec, image_of(self._node, container))

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await self._node.in_thread(work, FILE_SECONDS, "reading config.json for plugins of NRI")

    async def _carry_out(
        self, updates: Iterable[nri.ContainerUpdate], evictions: Iterable[nri.ContainerEviction] = ()
    ) -> list[nri.ContainerUpdate]:
        """Carry out what plugins ask of other containers; give the updates that failed and were insisted on."""
        failed = []
        for update in updates:
            container = self._node.containers.find(update.container_id)
            if container is None:
                continue
            try:
                await update_limits(self._node, container.id, *to_cri(update.linux.resources))
            except WherryError as error:
                log.warning("an update for a plugin of NRI failed", container=container.id, error=str(error))
                if not update.ignore_failure:
                    failed.append(update)
        for eviction in evictions:
            log.info("a plugin of NRI evicts a container", container=eviction.container_id, reason=eviction.reason)
            self._owner.background(_evict(self._node, eviction.container_id))
        return failed

    async def _out_of_turn(self, plugin: Plugin, request: nri.UpdateContainersRequest) -> nri.UpdateContainersResponse:
        """Carry out what a plugin asks for by itself; not within the lock, which a request to that very plugin may hold."""
        log.debug("a plugin of NRI updates containers", plugin=plugin.name, containers=len(request.update))
        return nri.UpdateContainersResponse(failed=await self._carry_out(request.update, request.evict))


async def _evict(node: Node, container_id: str) -> None:
    try:
        await stop_container(node, container_id, 0)
    except WherryError as error:
        log.warning("a container was not evicted", container=container_id, error=str(error))


def _mountinfo() -> str:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
