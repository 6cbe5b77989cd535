"""One plugin: registered, configured, synchronized, asked, and dropped when it hangs."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, TypeVar

import structlog

from shim.errors import FailedPrecondition
from shim.gen.nri.v1alpha1 import api_pb2 as nri
from shim.nri.calls import ALL_EVENTS, PLUGIN, RUNTIME, VERSION
from shim.nri.errors import UNIMPLEMENTED, Gone, NriError, Oversized, ProtocolError, Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from google.protobuf.message import Message

    from shim.nri.calls import Call
    from shim.nri.link import Link
    from shim.nri.session import Called

    M = TypeVar("M", bound=Message)
    Update = Callable[["Plugin", nri.UpdateContainersRequest], Awaitable[nri.UpdateContainersResponse]]

log = structlog.get_logger()

INDEX = re.compile(r"[0-9]{2}")
NAME = re.compile(r"[A-Za-z0-9._+-]+")
INVALID_ARGUMENT = 3
FEWEST = 8
"""Pods and containers in one part of a Synchronize; a part that is too large even so cannot be sent."""


class Plugin:
    """One connected plugin. `update` carries out what it asks for out of turn."""

    def __init__(self, link: Link, update: Update, *, index: str = "", base: str = "", config: str = "") -> None:
        """Without a name (`index` and `base`) the plugin says its own; one that was launched has the name of its file."""
        self._link = link
        self._update = update
        self._config = config
        self._launched = bool(base)
        self.index, self.base = index, base
        self.mask = 0
        self._registered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._silent: set[int] = set()
        self._changed: set[int] = set()
        link.serve = self._serve

    @property
    def name(self) -> str:
        """Index and name, as plugins are known."""
        return f"{self.index}-{self.base}" if self.base else f"unnamed plugin of process {self._link.peer_pid}"

    @property
    def gone(self) -> bool:
        """Whether the connection has ended."""
        return self._link.closed.is_set()

    def drop(self) -> None:
        """End the connection."""
        self._link.close()

    async def begin(self, registration: float, request: float, version: str) -> None:
        """Wait for its registration and configure it; raise NriError.

        `registration` and `request` are the seconds it has for one and for the other, of which it is told.
        """
        closed = asyncio.ensure_future(self._link.closed.wait())
        closed.add_done_callback(lambda _: self._registered.cancel())
        try:
            async with asyncio.timeout(registration):
                problem = await self._registered
        except TimeoutError:
            raise Gone(f"it did not register within {registration:g} s") from None
        except asyncio.CancelledError:
            if not self.gone:
                raise  # we are cancelled, not the registration
            raise Gone("it has closed the connection instead of registering") from None
        finally:
            closed.cancel()
        if problem:
            raise ProtocolError(problem)
        answer = await self._link.call(
            PLUGIN,
            "Configure",
            nri.ConfigureRequest(
                config=self._config,
                runtime_name="wherry",
                runtime_version=version,
                registration_timeout=int(registration * 1000),
                request_timeout=int(request * 1000),
                NRI_version=VERSION,
            ),
            nri.ConfigureResponse,
            request,
        )
        if answer.events & ~ALL_EVENTS:
            raise ProtocolError(f"it subscribes to events that do not exist (mask {answer.events:#x})")
        self.mask = answer.events or ALL_EVENTS

    async def synchronize(
        self, pods: Sequence[nri.PodSandbox], containers: Sequence[nri.Container], seconds: float
    ) -> list[nri.ContainerUpdate]:
        """Tell it what there is, in parts when it is much, and give the updates it wants; raise NriError."""
        deadline = asyncio.get_running_loop().time() + seconds
        most = len(pods) + len(containers)
        items: list[nri.PodSandbox | nri.Container] = [*pods, *containers]
        while True:
            part = nri.SynchronizeRequest(more=len(items) > most)
            for item in items[:most]:
                (part.pods if isinstance(item, nri.PodSandbox) else part.containers).append(item)  # type: ignore[arg-type]  # as tested
            left = deadline - asyncio.get_running_loop().time()
            try:
                answer = await self._link.call(PLUGIN, "Synchronize", part, nri.SynchronizeResponse, max(left, 0.0))
            except Oversized as error:
                if most <= FEWEST:
                    raise
                most = max(FEWEST, int(most * min(0.9, error.limit / error.size)))
                continue
            if not part.more:
                return list(answer.update)
            if answer.update or not answer.more:
                raise ProtocolError("it does not take pods and containers in parts")
            del items[:most]

    async def ask(self, call: Call, request: Message, seconds: float) -> Message | None:
        """Give its answer; None when it has not subscribed, or hangs or has died, upon which it is dropped.

        Raises FailedPrecondition with its words when it refuses.
        """
        if self.gone or not call.wanted(self.mask) or call.event in self._silent:
            return None
        try:
            return await self._ask(call, request, seconds)
        except Refused as error:
            raise FailedPrecondition(f"NRI plugin {self.name} refuses {call.method}: {error}") from error
        except NriError as error:
            log.error("a plugin of NRI is dropped", plugin=self.name, call=call.method, error=str(error))  # noqa: TRY400 - no traceback
            self.drop()
            return None

    async def _ask(self, call: Call, request: Message, seconds: float) -> Message | None:
        if call.event not in self._changed:
            try:
                return await self._link.call(PLUGIN, call.method, request, call.answer, seconds)
            except Refused as error:
                if error.code != UNIMPLEMENTED:
                    raise
            if not call.told:
                self._silent.add(call.event)
                return None
            self._changed.add(call.event)
        change = nri.StateChangeEvent(event=nri.Event.Name(nri.Event.ValueType(call.event)))
        for part in ("pod", "container"):
            if part in request.DESCRIPTOR.fields_by_name:
                getattr(change, part).CopyFrom(getattr(request, part))
        return await self._link.call(PLUGIN, "StateChange", change, nri.Empty, seconds)

    async def shut_down(self, seconds: float) -> None:
        """Tell it that the runtime goes, and drop it."""
        try:
            await self._link.call(PLUGIN, "Shutdown", nri.Empty(), nri.Empty, seconds)
        except NriError as error:
            log.debug("a plugin of NRI did not take its leave", plugin=self.name, error=str(error))
        self.drop()

    async def _serve(self, call: Called) -> Message:
        if call.service != RUNTIME:
            raise Refused(UNIMPLEMENTED, f"service {call.service} is not served")
        if call.method == "RegisterPlugin":
            return self._register(nri.RegisterPluginRequest.FromString(call.payload))
        if call.method == "UpdateContainers":
            return await self._update(self, nri.UpdateContainersRequest.FromString(call.payload))
        raise Refused(UNIMPLEMENTED, f"method {call.method} is not served")

    def _register(self, request: nri.RegisterPluginRequest) -> nri.Empty:
        if self._registered.done():
            raise Refused(INVALID_ARGUMENT, f"plugin {self.name} is registered already")
        if not self._launched:
            problem = _problem(request.plugin_idx, request.plugin_name)
            if problem:
                self._registered.set_result(problem)
                raise Refused(INVALID_ARGUMENT, problem)
            self.index, self.base = request.plugin_idx, request.plugin_name
        log.debug("a plugin of NRI registers", plugin=self.name, version=request.NRI_version)
        self._registered.set_result("")
        return nri.Empty()


def _problem(index: str, name: str) -> str:
    """Say what is wrong with a plugin's index and name, "" when nothing is."""
    if not INDEX.fullmatch(index):
        return f"index {index!r} is not made of two digits"
    if not NAME.fullmatch(name):
        return f"name {name!r} has other characters than letters, digits and ._+-"
    return ""
