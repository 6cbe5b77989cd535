"""All plugins: who is connected, and what they are asked, one event at a time and in the order of their indices.

One lock orders everything. An event is told to all who are there; a plugin that joins gets what exists and is there from then
on, within one hold of the lock: it sees each container either in what exists or as an event, and none is lost between.
A plugin has its timeout and no more, so that no hold lasts longer than the timeouts of those who are asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar, cast

import structlog

from shim.errors import FailedPrecondition
from shim.gen.nri.v1alpha1 import api_pb2 as nri
from shim.nri.adjust import Creation
from shim.nri.calls import CALLS
from shim.nri.limits import Updates
from shim.nri.owners import Conflict, Owners
from shim.nri.validator import objection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from google.protobuf.message import Message

    from shim.config import NriValidatorConfig
    from shim.nri.plugin import Plugin

    M = TypeVar("M", bound=Message)
    Everything = tuple[Sequence[nri.PodSandbox], Sequence[nri.Container]]

log = structlog.get_logger()


class Plugins:
    """The plugins of a node; every method but `join` and `close` is to be called with `lock` held."""

    def __init__(self, request_timeout: float, rules: NriValidatorConfig) -> None:
        self._timeout = request_timeout
        self._rules = rules
        self._plugins: list[Plugin] = []
        self.lock = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._plugins)

    def names(self) -> list[str]:
        """Give the plugins' names, in the order in which they are asked."""
        return [plugin.name for plugin in self._plugins]

    async def join(
        self, plugin: Plugin, everything: Callable[[], Awaitable[Everything]], seconds: float
    ) -> list[nri.ContainerUpdate]:
        """Synchronize a configured plugin and count it in; give the updates it wants. Raises NriError."""
        async with self.lock:
            pods, containers = await everything()
            updates = await plugin.synchronize(pods, containers, seconds)
            self._plugins.append(plugin)
            self._plugins.sort(key=lambda one: one.index)
        log.info("a plugin of NRI is there", plugin=plugin.name, pods=len(pods), containers=len(containers), order=self.names())
        return updates

    def leave(self, plugin: Plugin) -> None:
        """Forget a plugin; harmless for one that never joined."""
        with contextlib.suppress(ValueError):
            self._plugins.remove(plugin)

    async def tell(self, event: int, request: Message) -> None:
        """Tell an event that has no answer; raise FailedPrecondition for the first plugin that refuses."""
        for plugin in list(self._plugins):
            await plugin.ask(CALLS[event], request, self._timeout)

    async def create(self, request: nri.CreateContainerRequest) -> Creation:
        """Ask what to adjust of a container, and let validators judge it.

        Raises FailedPrecondition when a plugin refuses, two want the same, or a validator objects or does not answer.
        """
        question = nri.ValidateContainerAdjustmentRequest()
        if self._rules.enable or self._validators():
            question.pod.CopyFrom(request.pod)
            question.container.CopyFrom(request.container)
        creation = Creation(request.container)
        for plugin in list(self._plugins):
            question.plugins.add(name=plugin.base, index=plugin.index)
            answer = cast(
                "nri.CreateContainerResponse | None",
                await plugin.ask(CALLS[nri.CREATE_CONTAINER], request, self._timeout),
            )
            if answer is not None:
                with _conflicts_refuse():
                    creation.take(answer, plugin.name)
        validators = self._validators()
        if self._rules.enable or validators:
            question.adjust.CopyFrom(creation.asked)
            question.update.extend(creation.updates.others)
            question.owners.CopyFrom(creation.owners.message())
            reason = objection(self._rules, question) if self._rules.enable else ""
            if reason:
                raise FailedPrecondition(f"NRI: the adjustments of the container are rejected: {reason}")
            await asyncio.gather(*(self._validate(plugin, question) for plugin in validators))
        return creation

    def _validators(self) -> list[Plugin]:
        call = CALLS[nri.VALIDATE_CONTAINER_ADJUSTMENT]
        return [plugin for plugin in self._plugins if call.wanted(plugin.mask) and not plugin.gone]

    async def _validate(self, plugin: Plugin, question: nri.ValidateContainerAdjustmentRequest) -> None:
        answer = await plugin.ask(CALLS[nri.VALIDATE_CONTAINER_ADJUSTMENT], question, self._timeout)
        if answer is None and plugin.gone:
            raise FailedPrecondition(f"NRI plugin {plugin.name} did not judge the adjustments of the container")
        verdict = cast("nri.ValidateContainerAdjustmentResponse | None", answer)
        if verdict is not None and verdict.reject:
            reason = verdict.reason or "it gives no reason"
            raise FailedPrecondition(f"NRI plugin {plugin.name} rejects the adjustments of the container: {reason}")

    async def update(self, request: nri.UpdateContainerRequest) -> tuple[Updates, list[nri.ContainerEviction]]:
        """Ask what to change about an update, and about other containers; raises as `create` does."""
        updates = Updates(Owners(), own=(request.container.id, request.linux_resources))
        evictions: list[nri.ContainerEviction] = []
        for plugin in list(self._plugins):
            answer = cast(
                "nri.UpdateContainerResponse | None",
                await plugin.ask(CALLS[nri.UPDATE_CONTAINER], request, self._timeout),
            )
            if answer is not None:
                with _conflicts_refuse():
                    updates.take(answer.update, plugin.name)
                request.linux_resources.CopyFrom(updates.own)
                evictions += answer.evict
        return updates, evictions

    async def stop(self, request: nri.StopContainerRequest) -> Updates:
        """Tell that a container has stopped, and give the updates of others; raises as `create` does."""
        updates = Updates(Owners())
        for plugin in list(self._plugins):
            answer = cast(
                "nri.StopContainerResponse | None", await plugin.ask(CALLS[nri.STOP_CONTAINER], request, self._timeout)
            )
            if answer is not None:
                with _conflicts_refuse():
                    updates.take(answer.update, plugin.name)
        return updates

    async def close(self, seconds: float) -> None:
        """Tell all that the runtime goes, and drop them."""
        plugins, self._plugins = self._plugins, []
        await asyncio.gather(*(plugin.shut_down(seconds) for plugin in plugins), return_exceptions=True)


@contextlib.contextmanager
def _conflicts_refuse() -> Iterator[None]:
    try:
        yield
    except Conflict as error:
        raise FailedPrecondition(f"NRI: {error}") from error
