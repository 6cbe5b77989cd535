"""One pull: manifest, configuration, missing layers, all at the pace of the slower of network and disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shim.errors import FailedPrecondition
from shim.image import oci
from shim.image.layers import LayerWant
from shim.image.platform import choose
from shim.image.record import LayerProgress
from shim.image.tasks import all_or_none

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from shim.image.config import ImageConfig
    from shim.image.content import ContentStore
    from shim.image.jobs import Jobs
    from shim.image.layers import LayerSource, LayerStore
    from shim.image.registry.client import Repository

    Progress = Callable[[LayerProgress], None]

MAX_NESTED = 3
REPORT_EVERY = 512 * 1024
"""Bytes between two reports on a layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An image as its registry (or archive) describes it: what was asked for, the manifest and the configuration."""

    target_digest: str
    """Digest of the index or manifest that the reference names."""
    manifest: oci.Manifest
    config_raw: bytes
    config: oci.OciImageConfig

    @property
    def id(self) -> str:
        """The image's id."""
        return self.manifest.config.digest


async def find(repository: Repository, target: str, wanted: oci.Platform, name: str) -> Found:
    """Fetch the manifest of `target` for one platform, through indexes, and its configuration.

    Raises NotFound, PermissionDenied, Unavailable, FailedPrecondition.
    """
    target_digest = ""
    for _ in range(MAX_NESTED):
        raw, content_type, digest = await repository.manifest(target)
        target_digest = target_digest or digest
        document = oci.load_object(raw, f"the manifest of {name}", oci.MAX_MANIFEST)
        media_type = oci.media_type_of(document, content_type)
        if media_type not in oci.INDEX_TYPES:
            break
        chosen = choose(oci.parse_index(document, f"the index of {name}"), wanted, name)
        if target == chosen.digest:
            raise FailedPrecondition(f"the index of {name} names itself")
        target = chosen.digest
    else:
        raise FailedPrecondition(f"{name} is an index of indexes, more than {MAX_NESTED} deep")
    manifest = oci.parse_manifest(raw, document, media_type, digest)
    config_raw = await repository.small_blob(manifest.config, oci.MAX_CONFIG, "the configuration")
    return described(manifest, config_raw, name, target_digest)


def described(manifest: oci.Manifest, config_raw: bytes, name: str, target_digest: str) -> Found:
    """Check that manifest and configuration fit each other; raise FailedPrecondition."""
    config = oci.parse_config(config_raw, f"the configuration of {name}")
    if config.os not in {"", "linux"}:
        raise FailedPrecondition(f"{name} is an image for {config.os[:40]!r}, not for linux")
    if len(config.diff_ids) != len(manifest.layers):
        raise FailedPrecondition(
            f"{name} has {len(manifest.layers)} layers, but its configuration lists {len(config.diff_ids)}; "
            "artifacts other than images cannot be unpacked"
        )
    return Found(target_digest=target_digest, manifest=manifest, config_raw=config_raw, config=config)


class Streamed:
    """A layer that comes from a registry."""

    def __init__(self, puller: Puller, descriptor: oci.Descriptor) -> None:
        self._puller = puller
        self._descriptor = descriptor
        self._passed = 0

    def another(self) -> bool:
        """Pass over the host whose bytes were wrong; say whether there is one more."""
        self._passed += 1
        return self._passed < self._puller.repository.sources

    async def unpack(self, params: dict[str, Any], recipe: int) -> dict[str, Any]:
        """Download into the unpacker's pipe; keep a copy when asked to."""
        params["digest"] = self._descriptor.digest
        puller = self._puller
        keeping = puller.content.new_partial() if puller.config.keep_compressed_blobs else ""
        try:
            result = await puller.jobs.feed(params, (recipe,), self._chunks(keeping))
            if keeping:
                puller.content.adopt(keeping, self._descriptor.digest)
        except BaseException:
            if keeping:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(keeping)
            raise
        return result

    async def _chunks(self, keeping: str) -> AsyncGenerator[bytes, None]:
        descriptor, done, told = self._descriptor, 0, 0
        kept = open(keeping, "wb") if keeping else None  # noqa: ASYNC230, SIM115 - page cache; closed below
        blob = self._puller.repository.blob(descriptor, self._passed)
        try:
            async with contextlib.aclosing(blob):
                async for chunk in blob:
                    yield chunk
                    done += len(chunk)
                    if kept is not None:
                        kept.write(chunk)
                    if done - told >= REPORT_EVERY:
                        told = done
                        self._puller.report(descriptor, "downloading", done)
        finally:
            if kept is not None:
                kept.close()
        self._puller.report(descriptor, "unpacking", done)


@dataclass(frozen=True, slots=True, kw_only=True)
class Puller:
    """What one pull needs."""

    repository: Repository
    content: ContentStore
    layers: LayerStore
    jobs: Jobs
    config: ImageConfig
    progress: Progress | None = None

    def report(self, descriptor: oci.Descriptor, phase: str, current: int) -> None:
        """Tell whoever wants to know."""
        if self.progress is not None:
            told = LayerProgress(digest=descriptor.digest, phase=phase, current=current, total=descriptor.size)
            self.progress(told)

    async def fetch_layers(self, found: Found, name: str) -> None:
        """Fetch and unpack what is missing; the caller holds leases on the chain ids."""
        sources = [Streamed(self, descriptor) for descriptor in found.manifest.layers]
        await ensure_all(self.layers, found, name, sources, self.report)


class _Slotted:
    """A layer that is begun when a slot is free, and gives it back when unpacked: to wait for the disk takes none."""

    def __init__(self, source: LayerSource, slots: asyncio.Semaphore) -> None:
        self.another = source.another
        self._source = source
        self._slots = slots
        self._held = False

    async def unpack(self, params: dict[str, Any], recipe: int) -> dict[str, Any]:
        """See LayerSource."""
        await self.enter()
        try:
            return await self._source.unpack(params, recipe)
        finally:
            self.leave()

    async def enter(self) -> None:
        """Wait for a slot, unless it has one."""
        if not self._held:
            self._held = await self._slots.acquire()

    def leave(self) -> None:
        """Give the slot back; idempotent."""
        if self._held:
            self._held = False
            self._slots.release()


async def ensure_all(
    layers: LayerStore,
    found: Found,
    name: str,
    sources: Sequence[LayerSource],
    report: Callable[[oci.Descriptor, str, int], None],
) -> None:
    """Make the layers of an image that are not there, several at once, the base first.

    The first failure stops the others and is raised.
    """
    wants = wanted_layers(found, name)
    slots = asyncio.Semaphore(max(1, layers.parallel))

    async def one(place: int) -> None:
        source = _Slotted(sources[place], slots)
        await source.enter()
        try:
            await layers.ensure(wants[place], source)
        finally:
            source.leave()
        descriptor = found.manifest.layers[place]
        report(descriptor, "done", descriptor.size)

    missing = [place for place, want in enumerate(wants) if layers.get(want.chain_id) is None]
    for place, descriptor in enumerate(found.manifest.layers):
        report(descriptor, "waiting" if place in missing else "exists", 0)
    await all_or_none([one(place) for place in missing])


def wanted_layers(found: Found, name: str) -> list[LayerWant]:
    """Give the layers of an image, the base first."""
    chain = oci.chain_ids(found.config.diff_ids)
    return [
        LayerWant(
            chain_id=chain_id,
            parent=chain[place - 1] if place else "",
            diff_id=found.config.diff_ids[place],
            what=f"layer {place + 1} of {len(chain)} ({_shown(found.manifest.layers[place])}) of {name}",
        )
        for place, chain_id in enumerate(chain)
    ]


def _shown(layer: oci.Descriptor) -> str:
    """Name a layer by its digest, and by its media type where that is none we know: its bytes may be what it says they are."""
    digest = layer.digest[:19]
    return (
        digest
        if not layer.media_type or oci.LAYER_TYPES.fullmatch(layer.media_type)
        else f"{digest}, {layer.media_type[:120]!r}"
    )
