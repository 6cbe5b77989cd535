"""The image store: everything the daemon does with images goes through here.

pull, load      images in
resolve, list   from memory, never waiting
remove          an image with all its names; an unknown one raises NotFound, which CRI's RemoveImage answers with success
prepare_rootfs  a container's root on an image; holds the image's layers until remove_rootfs
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from shim.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, WherryError
from shim.image import oci
from shim.image.archive.load import load_archive
from shim.image.archive.save import save_archive
from shim.image.catalog import Catalog
from shim.image.content import ContentStore, Syncer
from shim.image.jobs import Jobs, Spawner
from shim.image.layers import LayerStore
from shim.image.platform import host_platform
from shim.image.pull import Found, Puller, find
from shim.image.record import FsUsage, ImageRecord, LayerProgress, RootfsSpec
from shim.image.reference import Reference, parse_reference, tag_only
from shim.image.registry.hosts import hosts_for
from shim.image.rootfs import Roots
from shim.image.tasks import Joined, complete
from shim.store import images as rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from shim.image.config import ImageConfig
    from shim.image.registry.auth import Auth
    from shim.image.registry.client import Repository
    from shim.store.database import Database

    Progress = Callable[[LayerProgress], None]
    Listeners = list[Progress]
    Names = list[str]


class ImageStore:
    """Images, their layers and the roots of containers below one directory."""

    def __init__(self, config: ImageConfig, root: str, db: Database, spawner: Spawner) -> None:
        """Touch nothing yet: `start` does. Raises InvalidArgument for settings that make no sense."""
        self.config = config
        self.root = root
        self.platform = host_platform(config.platform)
        self.jobs = Jobs(spawner)
        self.syncer = Syncer(root)
        self.content = ContentStore(os.path.join(root, "content"))
        self.layers = LayerStore(os.path.join(root, "layers"), config, db, self.jobs, self.syncer)
        self.catalog = Catalog(self.content, self.layers, config.pinned)
        self._db = db
        self._roots = Roots(db, self.layers, self.jobs)
        self._pulls: Joined[str] = Joined()
        self._listeners: dict[object, list[Progress]] = {}
        self._held: Counter[str] = Counter()
        self._transport: Any = None

    async def start(self) -> list[str]:
        """Recover: remove orphans, forget what is incomplete; give what was wrong. Never fatal."""
        found = self._db.read(rows.read_all)
        problems: list[str] = []
        self.content.start()
        gone = await self.layers.start(found.layers)
        problems.extend(f"layer {chain_id} has lost its directory" for chain_id in sorted(gone))
        names: dict[str, list[str]] = {}
        for name, image_id in found.refs:
            names.setdefault(image_id, []).append(name)
        lost = []
        for row in found.images:
            try:
                self.catalog.add(row, names.get(row.id, ()))
            except WherryError as error:
                lost.append(row.id)
                problems.append(f"image {row.id} must be pulled again: {error}")
        if lost:
            await self._db.write(lambda db: rows.delete_images(db, tuple(lost)))
        self._roots.start(found.snapshots)
        try:
            await self.collect()
        except (WherryError, OSError) as error:
            problems.append(f"unused layers could not be removed: {error}")
        return problems

    async def stop(self) -> None:
        """Give up unfinished pulls and close connections."""
        await self._pulls.stop()
        await self.layers.stop()
        if self._transport is not None:
            await self._transport.close()

    # Asking

    def resolve(self, ref_or_id: str) -> ImageRecord:
        """Give an image by id, id prefix, tag or digest reference; raise NotFound, InvalidArgument."""
        return self.catalog.resolve(ref_or_id)

    def list(self) -> list[ImageRecord]:
        """Give all images."""
        return self.catalog.records()

    def layer_paths(self, image_id: str) -> tuple[str, ...]:
        """Give the directories of an image's layers, topmost first; raise NotFound."""
        return tuple(self.layers.path(row) for row in self.layers.chain(self.catalog.resolve(image_id).chain_id))

    def config_json(self, image_id: str) -> bytes:
        """Give an image's configuration as it was pulled, for verbose status; raise NotFound."""
        return self.content.read(self.catalog.resolve(image_id).id)

    def filesystem_usage(self) -> FsUsage:
        """Give what layers and documents take."""
        layers, content = self.layers.usage(), self.content.usage()
        return FsUsage(mountpoint=self.root, used_bytes=layers[0] + content[0], inodes_used=layers[1] + content[1])

    # Images in

    async def pull(self, reference: str, auth: Auth | None, *, progress: Progress | None = None) -> str:
        """Fetch an image and give its id; the same pull by several callers is done once.

        Raises InvalidArgument, NotFound, PermissionDenied, Unavailable ("RegistryUnavailable: …"), FailedPrecondition (what
        came is not what was promised), ResourceExhausted (disk full, bounds). A failed or cancelled pull leaves nothing.
        """
        parsed = parse_reference(reference)
        key = (str(parsed), auth)
        listeners = self._listeners.setdefault(key, [])
        if progress is not None:
            listeners.append(progress)
        try:
            return await self._pulls.run(key, lambda: self._pull(parsed, auth, listeners))
        finally:
            if progress is not None:
                listeners.remove(progress)
            if self._pulls.running(key) is None:
                self._listeners.pop(key, None)

    async def _pull(self, reference: Reference, auth: Auth | None, listeners: Listeners) -> str:
        def tell(progress: LayerProgress) -> None:
            for listener in listeners:
                listener(progress)

        repository = await self._repository(reference, auth)
        found = await find(repository, reference.target, self.platform, str(reference))
        puller = Puller(
            repository=repository, content=self.content, layers=self.layers, jobs=self.jobs, config=self.config, progress=tell
        )
        names = [reference.with_digest(found.target_digest)]
        if not reference.digest:
            names.append(reference.tagged)
        return await self.store(found, tuple(names), lambda: puller.fetch_layers(found, str(reference)))

    async def _repository(self, reference: Reference, auth: Auth | None) -> Repository:
        hosts = await asyncio.to_thread(hosts_for, reference.domain, self.config.registry_config_dirs)
        # An idle daemon has never needed HTTP: the client's 15 MB come with the first pull.
        client = await asyncio.to_thread(importlib.import_module, "shim.image.registry.client")
        if self._transport is None:
            self._transport = client.Transport(self.config)
        repository: Repository = client.Repository(reference, hosts, auth, self._transport, self.config)
        return repository

    async def store(self, found: Found, names: tuple[str, ...], make_layers: Callable[[], Awaitable[None]]) -> str:
        """Store an image: documents, layers (by make_layers), rows; on failure nothing of it stays."""
        count = len(found.config.diff_ids)
        if count > self.config.max_layers:
            raise FailedPrecondition(f"the image has {count} layers, more than {self.config.max_layers} (max_layers)")
        chain = oci.chain_ids(found.config.diff_ids)
        documents = {found.id: found.config_raw, found.manifest.digest: found.manifest.raw}
        try:
            with self._holding(chain, (*documents, *(layer.digest for layer in found.manifest.layers))):
                await self._make(documents, make_layers)
                await complete(self._commit(found, chain, names))
        except BaseException as error:
            with contextlib.suppress(WherryError, OSError):  # what cannot be removed now is removed at the next start
                await complete(self.collect())
            if isinstance(error, OSError):
                raise ResourceExhausted(f"the image cannot be written below {self.root}: {error}") from error
            raise
        return found.id

    async def _make(self, documents: dict[str, bytes], make_layers: Callable[[], Awaitable[None]]) -> None:
        fresh = not all(self.content.has(digest) for digest in documents)
        for digest, data in documents.items():
            self.content.put(digest, data)
        await make_layers()
        if fresh:
            await self.syncer.barrier()

    @contextlib.contextmanager
    def _holding(self, chain: tuple[str, ...], digests: tuple[str, ...]) -> Iterator[None]:
        self._held.update(digests)
        try:
            with self.layers.lease(chain):
                yield
        finally:
            self._held.subtract(digests)

    async def _commit(self, found: Found, chain: tuple[str, ...], names: tuple[str, ...]) -> None:
        top = chain[-1] if chain else ""
        unpacked = sum(layer.bytes for layer in self.layers.chain(top))
        row = rows.ImageRow(
            id=found.id,
            manifest=found.manifest.digest,
            media_type=found.manifest.media_type,
            top=top,
            size=unpacked + len(found.manifest.raw) + len(found.config_raw),
            stored_ns=time.time_ns(),
            layers=tuple(
                rows.ImageLayerRow(chain_id=chain_id, digest=layer.digest, size=layer.size, media_type=layer.media_type)
                for chain_id, layer in zip(chain, found.manifest.layers, strict=True)
            ),
        )
        await self._db.write(lambda db: rows.put_image(db, row, names))
        self.catalog.add(row, names)

    async def load(self, archive: str | int, progress: Progress | None = None) -> Names:
        """Store every image of an OCI or docker archive: a path (also of an OCI layout directory) or a descriptor.

        Gives the names the images got, and the ids of those without one. Raises InvalidArgument (not an archive),
        FailedPrecondition (a damaged one), ResourceExhausted.
        """
        return await load_archive(self, archive, progress)

    async def save(self, refs: Sequence[str], out: str | int, format: str = "docker-archive") -> None:  # noqa: A002 - as skopeo says
        """Write images to a path (created 0600, never overwritten) or a descriptor; docker-archive or oci-archive.

        Raises NotFound, AlreadyExists, InvalidArgument, FailedPrecondition when a layer cannot be made again.
        """
        await save_archive(self, refs, out, format)

    # Changing

    async def tag(self, source: str, target: str) -> None:
        """Give an image one more name; a name that pointed elsewhere moves. Raises NotFound, InvalidArgument."""
        image_id = self.catalog.resolve(source).id
        reference = parse_reference(target)
        if reference.digest:
            raise InvalidArgument(f"{target!r} has a digest; an image is tagged with a name and a tag")
        names = (str(tag_only(reference)),)
        await complete(self._name(image_id, names))

    async def _name(self, image_id: str, names: tuple[str, ...]) -> None:
        await self._db.write(lambda db: rows.put_names(db, image_id, names))
        self.catalog.name(image_id, names)

    async def remove(self, ref_or_id: str) -> None:
        """Remove an image with all its names, in all repositories, and the layers nothing else needs; raise NotFound.

        Layers under a container's root stay until remove_rootfs.
        """
        image_id = self.catalog.resolve(ref_or_id).id
        await complete(self._remove(image_id))

    async def _remove(self, image_id: str) -> None:
        await self._db.write(lambda db: rows.delete_images(db, (image_id,)))
        self.catalog.drop(image_id)
        await self.collect()

    async def collect(self) -> int:
        """Remove layers and documents that nothing needs; give the bytes freed."""
        images = self.catalog.rows()
        keep = {digest for digest, count in self._held.items() if count > 0}
        for row in images:
            keep |= {row.id, row.manifest, *(layer.digest for layer in row.layers)}
        self.content.keep_only(keep)
        return await self.layers.collect({row.top for row in images} | self._roots.tops())

    # Roots of containers

    async def prepare_rootfs(
        self, container_id: str, image_id: str, container_dir: str, *, read_only: bool = False
    ) -> RootfsSpec:
        """Make upper and work directories in `container_dir` and hold the image's layers; raise NotFound, OSError.

        A second call for the same container gives the same answer.
        """
        image = self.catalog.resolve(image_id)
        return await complete(self._roots.prepare(container_id, image, container_dir, read_only=read_only))

    async def hold(self, container_id: str, image_id: str) -> tuple[str, ...]:
        """Give the directories of an image's layers, topmost first, and keep them until the container's root is removed."""
        return await complete(self._roots.hold(container_id, self.catalog.resolve(image_id)))

    async def remove_rootfs(self, container_id: str) -> None:
        """Remove a container's upper and work directories and let its layers go; unknown ids are no error."""
        if await complete(self._roots.remove(container_id)):
            await complete(self.collect())

    def rootfs_containers(self) -> tuple[str, ...]:
        """Give the ids of all containers that hold layers, so that recovery finds those nobody knows."""
        return self._roots.containers()
