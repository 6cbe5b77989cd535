"""wherry.v1.WherryService: what people need beside CRI. Methods bear the RPCs' names in snake case."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import tempfile
import time
from typing import TYPE_CHECKING, Any

from shim.errors import InvalidArgument
from shim.gen.wherry.v1 import wherry_pb2
from shim.rpc.node_status import software_version
from shim.store.containers import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shim.pod.node import Node

CHUNK = 1 << 20
"""Bytes of an archive in one message."""


class WherryService:
    """Decode, call, encode."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._images = node.images
        self._started_at = time.time_ns()

    async def info(self, _request: wherry_pb2.InfoRequest) -> wherry_pb2.InfoResponse:
        """Say what this daemon is and how much it holds."""
        node = self._node
        containers = [container for container in node.containers if container.status.created_at]
        return wherry_pb2.InfoResponse(
            version=software_version(),
            pid=os.getpid(),
            started_at=self._started_at,
            root=node.config.root,
            state=node.config.state,
            python_version=platform.python_version(),
            kernel_version=platform.release(),
            cgroup_layout=str(node.host.cgroup_layout),
            runtime_handlers=list(dict.fromkeys(["wherry", *node.config.runtime.handlers])),
            pods=sum(1 for pod in node.pods if pod.status.ready_at),
            containers=len(containers),
            containers_running=sum(1 for container in containers if container.state is State.RUNNING),
            images=len(self._images.list()),
            image_bytes=self._images.filesystem_usage().used_bytes,
        )

    async def load(self, requests: AsyncIterator[wherry_pb2.LoadRequest]) -> wherry_pb2.LoadResponse:
        """Store the images of an archive that lies on this host or comes with the call."""
        first = await anext(aiter(requests), None)
        if first is None:
            raise InvalidArgument("the first message must have a path or data")
        if first.path:
            if first.data:
                raise InvalidArgument("a message must have a path or data, not both")
            return self._loaded(await self._images.load(_absolute(first.path)))
        with tempfile.NamedTemporaryFile(dir=self._node.config.root, prefix="load-") as archive:
            archive.write(first.data)
            async for request in requests:
                await asyncio.to_thread(archive.write, request.data)
            archive.flush()
            return self._loaded(await self._images.load(archive.name))

    def _loaded(self, references: list[str]) -> wherry_pb2.LoadResponse:
        names: dict[str, list[str]] = {}
        for reference in references:
            record = self._images.resolve(reference)
            names.setdefault(record.id, []).extend([] if reference == record.id else [reference])
        images = [wherry_pb2.LoadedImage(image_id=key, references=value) for key, value in names.items()]
        return wherry_pb2.LoadResponse(images=images)

    async def save(self, request: wherry_pb2.SaveRequest) -> AsyncIterator[wherry_pb2.SaveResponse]:
        """Write images into an archive on this host, or give its bytes."""
        if not request.references:
            raise InvalidArgument("references must name an image")
        form = "oci-archive" if request.format == wherry_pb2.OCI_ARCHIVE else "docker-archive"
        references = list(request.references)
        if request.path:
            await self._images.save(references, _absolute(request.path), form)
            yield wherry_pb2.SaveResponse()
            return
        with tempfile.TemporaryFile(dir=self._node.config.root) as archive:
            await self._images.save(references, archive.fileno(), form)
            archive.seek(0)
            while chunk := await asyncio.to_thread(archive.read, CHUNK):
                yield wherry_pb2.SaveResponse(data=chunk)

    async def tag(self, request: wherry_pb2.TagRequest) -> wherry_pb2.TagResponse:
        """Give an image one more name."""
        await self._images.tag(request.source, request.target)
        return wherry_pb2.TagResponse()

    async def prune(self, request: wherry_pb2.PruneRequest) -> wherry_pb2.PruneResponse:
        """Remove the images that no container uses."""
        used = {container.meta.image_id for container in self._node.containers}
        before = self._images.filesystem_usage().used_bytes
        removed = []
        for record in self._images.list():
            if record.pinned or record.id in used or (record.repo_tags and not request.all):
                continue
            await self._images.remove(record.id)
            removed.append(record.id)
        freed = max(before - self._images.filesystem_usage().used_bytes, 0)
        return wherry_pb2.PruneResponse(image_ids=removed, freed_bytes=freed)

    async def pull_progress(self, request: wherry_pb2.PullProgressRequest) -> AsyncIterator[wherry_pb2.PullProgressResponse]:
        """Pull an image and report while it is done."""
        auth = None
        if request.username:
            from shim.image.registry.auth import Auth  # noqa: PLC0415 - only pulls with credentials need it

            auth = Auth(username=request.username, password=request.password)
        queue: asyncio.Queue[Any] = asyncio.Queue()
        pull = asyncio.create_task(self._images.pull(request.reference, auth, progress=queue.put_nowait))
        pull.add_done_callback(lambda _task: queue.put_nowait(None))
        try:
            while (update := await queue.get()) is not None:
                yield wherry_pb2.PullProgressResponse(layers=[_layer(update)])
            yield wherry_pb2.PullProgressResponse(image_id=await pull)
        finally:
            pull.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await pull


def _layer(update: Any) -> wherry_pb2.LayerProgress:
    return wherry_pb2.LayerProgress(
        digest=update.digest, phase=update.phase.upper(), current=update.current, total=update.total
    )


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidArgument(f"path {path!r} must be absolute, on the daemon's host")
    return path
