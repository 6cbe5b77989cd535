"""NRI on this node: the socket, the plugins that are started with the daemon, and the way in for handlers.

A handler asks `active` first: without a plugin that is all NRI costs, and nothing of it is imported. The one thing noted even
then is what is on its way into being (`pending`): a plugin that joins meanwhile must not miss it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

import structlog

from shim.errors import WherryError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from shim.nri.exchange import Exchange
    from shim.nri.link import Link
    from shim.nri.plugin import Plugin
    from shim.pod.node import Node
    from shim.store.containers import Container
    from shim.store.pods import Pod

log = structlog.get_logger()

FAREWELL_SECONDS = 1.0
"""Time plugins have, at the end, to answer that they know of it."""


class Nri:
    """What handlers see of NRI."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._config = node.config.nri
        self._exchange: Exchange | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.pending_pods: dict[str, Pod] = {}
        """Pods of which RunPodSandbox has been told, and which are not in the store as running yet."""
        self.pending_containers: dict[str, tuple[Pod, Container, bytes]] = {}
        """The same of containers, with the config.json they have so far."""

    @property
    def active(self) -> Exchange | None:
        """The plugins, when there are any or one is joining; None: there is nobody to ask."""
        exchange = self._exchange
        return exchange if exchange is not None and exchange.busy else None

    @property
    def exchange(self) -> Exchange:
        """The plugins, made on first use."""
        if self._exchange is None:
            from shim.nri.exchange import Exchange  # noqa: PLC0415 - most nodes have no plugin

            self._exchange = Exchange(self._node, self)
        return self._exchange

    # What is on its way into being

    async def run_pod(self, pod: Pod) -> None:
        """Tell that a pod is about to be ready; raise FailedPrecondition when a plugin refuses."""
        exchange = self.active
        if exchange is None:
            self.pending_pods[pod.id] = pod
        else:
            await exchange.run_pod(pod)

    async def undo_pod(self, pod: Pod) -> None:
        """Tell that a pod will not be ready after all."""
        self.pending_pods.pop(pod.id, None)
        exchange = self.active
        if exchange is not None:
            await exchange.stop_pod(pod)
            await exchange.remove_pod(pod)

    async def create_container(self, pod: Pod, container: Container, config: bytes) -> bytes:
        """Give a config.json as plugins have adjusted it; see Exchange.create. The node's own rules hold without any."""
        if self.active is not None or self._config.default_validator.enable:
            return await self.exchange.create(pod, container, config)
        self.pending_containers[container.id] = (pod, container, config)
        return config

    async def undo_container(self, container_id: str) -> None:
        """Tell that a container was not created after all."""
        pending = self.pending_containers.pop(container_id, None)
        exchange = self.active
        if exchange is not None and pending is not None:
            await exchange.undo(*pending)

    def exited(self, container_id: str) -> None:
        """Tell, sometime, that a container has ended."""
        exchange = self.active
        if exchange is not None:
            self.background(exchange.stopped(container_id))

    # Coming and going

    def describe(self) -> dict[str, Any]:
        """Give, for people, where plugins connect and which there are."""
        plugins = self._exchange.plugins.names() if self._exchange is not None else []
        return {"socket": self._config.socket if self._server is not None else "", "plugins": plugins}

    def background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine that nobody waits for."""
        task = asyncio.create_task(_reported(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def start(self) -> None:
        """Start the installed plugins and wait until they know of everything, or have had their time; then listen.

        Never fatal: a plugin or a socket that does not work is reported.
        """
        if not self._config.enable:
            return
        await asyncio.gather(*(self._launch(*one) for one in await self._installed()))
        if self._config.socket:
            try:
                self._server = await self._listen(self._config.socket)
            except OSError as error:
                log.warning("plugins of NRI cannot connect", socket=self._config.socket, error=str(error))

    async def close(self) -> None:
        """Say farewell to the plugins and stop listening."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                os.unlink(self._config.socket)
        if self._exchange is not None:
            await self._exchange.plugins.close(FAREWELL_SECONDS)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _listen(self, path: str) -> asyncio.Server | None:
        """Bind the socket, in place of one that nobody serves any more."""
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        if _served(path):
            log.warning("plugins of NRI cannot connect: another runtime serves the socket", socket=path)
            return None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        before = os.umask(0o177)
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            sock.bind(path)
        finally:
            os.umask(before)
        return await asyncio.get_running_loop().create_unix_server(self._arrived, sock=sock)

    def _arrived(self) -> Link:
        """Take up a plugin that connects."""
        from shim.nri.link import Link  # noqa: PLC0415 - most nodes have no plugin

        link = Link()
        self.background(self._admit(link, self.exchange.plugin(link)))
        return link

    async def _admit(self, link: Link, plugin: Plugin, joined: asyncio.Event | None = None) -> None:
        """Let a plugin join, and forget it when its connection ends; `joined` is set when it is in, or will not be."""
        try:
            stays = await self.exchange.join(plugin)
        finally:
            if joined is not None:
                joined.set()
        if stays:
            await link.closed.wait()
            self.exchange.leave(plugin)

    async def _installed(self) -> list[tuple[str, str, str, str]]:
        """Give path, index, name and configuration of the installed plugins; what cannot be read is reported."""

        def look() -> list[tuple[str, str, str, str]]:
            from shim.nri import launch  # noqa: PLC0415 - once

            return launch.installed(self._config.plugin_dir, self._config.plugin_config_dir)

        try:
            return await self._node.in_thread(look, self._config.registration_timeout, "looking for plugins of NRI")
        except (OSError, ValueError, WherryError) as error:
            log.warning("the installed plugins of NRI are not started", directory=self._config.plugin_dir, error=str(error))
            return []

    async def _launch(self, path: str, index: str, name: str, config: str) -> None:
        """Start an installed plugin and wait until it has joined or failed to."""
        from shim.nri.link import Link  # noqa: PLC0415 - most nodes have no plugin

        ours, theirs = socket.socketpair()
        link = Link()
        with theirs:
            process = self.background(self._run(path, index, name, theirs.dup()))
        await asyncio.get_running_loop().create_connection(lambda: link, sock=ours)
        plugin = self.exchange.plugin(link, index=index, base=name, config=config)
        process.add_done_callback(lambda _: plugin.drop())
        joined = asyncio.Event()
        self.background(self._admit(link, plugin, joined)).add_done_callback(lambda _: process.cancel())
        await joined.wait()

    async def _run(self, path: str, index: str, name: str, sock: socket.socket) -> None:
        """Be with a plugin's process until it ends; cancelled, kill it. Its socket is its own from when it starts."""
        params = {"path": path, "index": index, "name": name}
        with sock:
            try:
                await self._node.jobs.job("nri", params, fds=[sock.fileno()], timeout=None, on_progress=lambda _: sock.close())
            except WherryError as error:
                log.warning("an installed plugin of NRI has ended", plugin=f"{index}-{name}", error=str(error))


async def _reported(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:
        log.exception("a task of NRI failed")


def _served(path: str) -> bool:
    """Tell whether somebody listens on a socket: then it is not ours to replace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(0.2)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
