"""Load archives: docker save's (docker/docker image/spec v1.2, manifest.json) and OCI image layouts (image-layout.md)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from shim.errors import FailedPrecondition, InvalidArgument
from shim.image import oci
from shim.image.archive.files import ArchiveFiles, open_archive
from shim.image.platform import choose
from shim.image.pull import Found, described, ensure_all
from shim.image.record import LayerProgress
from shim.image.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.image.service import ImageStore

    Progress = Callable[[LayerProgress], None]

MAX_IMAGES = 1000
FULL_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"


class Stored:
    """A layer that lies in an archive."""

    def __init__(self, store: ImageStore, files: ArchiveFiles, name: str, digest: str) -> None:
        self._store = store
        self._files = files
        self._name = name
        self._digest = digest

    async def unpack(self, params: dict[str, Any], recipe: int) -> dict[str, Any]:
        """Let the unpacker read the archive itself."""
        member = self._files.member(self._name)
        fd, own = self._files.open(member)
        try:
            params |= {"digest": self._digest, "offset": member.offset, "length": member.size}
            return await self._store.jobs.run(params, (fd, recipe))
        finally:
            if own:
                os.close(fd)

    def another(self) -> bool:
        """See LayerSource: an archive has its layers once."""
        return False


async def load_archive(store: ImageStore, archive: str | int, progress: Progress | None) -> list[str]:
    """Store every image of an archive; see ImageStore.load."""
    folder = os.path.join(store.root, "content", "partial")
    files = await open_archive(store.jobs, archive, folder, 4 * store.config.max_layer_bytes)
    try:
        if files.has("manifest.json"):
            images = _docker(files)
        elif files.has("index.json"):
            images = _layout(files, store.platform)
        else:
            raise InvalidArgument("the archive is neither docker save's format (manifest.json) nor an OCI layout (index.json)")
        loaded: list[str] = []
        for found, names, layers in images:
            sources = [Stored(store, files, name, digest) for name, digest in layers]
            image_id = await _store(store, found, names, sources, progress)
            loaded.extend(names or (image_id,))
        return list(dict.fromkeys(loaded))
    finally:
        files.close()


async def _store(
    store: ImageStore, found: Found, names: tuple[str, ...], sources: list[Stored], progress: Progress | None
) -> str:
    def report(descriptor: oci.Descriptor, phase: str, current: int) -> None:
        if progress is not None:
            progress(LayerProgress(digest=descriptor.digest, phase=phase, current=current, total=descriptor.size))

    async def make() -> None:
        await ensure_all(store.layers, found, names[0] if names else found.id, sources, report)

    return await store.store(found, names, make)


Image = tuple[Found, tuple[str, ...], list[tuple[str, str]]]
"""An image, its names, and for each layer its file and digest ("" when only the diff id is known)."""


def _docker(files: ArchiveFiles) -> list[Image]:
    try:
        entries = json.loads(files.read("manifest.json", oci.MAX_MANIFEST))
    except (ValueError, RecursionError) as error:
        raise FailedPrecondition(f"manifest.json in the archive is not JSON: {error}") from error
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_IMAGES:
        raise FailedPrecondition(f"manifest.json in the archive does not list 1 to {MAX_IMAGES} images")
    return [_docker_image(files, entry) for entry in entries]


def _docker_image(files: ArchiveFiles, entry: Any) -> Image:
    if not isinstance(entry, dict):
        raise FailedPrecondition("manifest.json in the archive has an entry that is not an object")
    config_name, layers, tags = entry.get("Config"), entry.get("Layers") or [], entry.get("RepoTags") or []
    texts = isinstance(config_name, str) and isinstance(layers, list) and isinstance(tags, list)
    if not texts or not all(isinstance(text, str) for text in (*layers, *tags)):
        raise FailedPrecondition("manifest.json in the archive has an entry without Config, Layers and RepoTags")
    assert isinstance(config_name, str)
    config_raw = files.read(config_name, oci.MAX_CONFIG)
    config = oci.parse_config(config_raw, f"{config_name[:120]!r} in the archive")
    if len(config.diff_ids) != len(layers):
        raise FailedPrecondition(f"the archive has {len(layers)} layers of an image that lists {len(config.diff_ids)}")
    blobs = [
        {"mediaType": oci.OCI_LAYER, "digest": diff_id, "size": files.member(name).size}
        for name, diff_id in zip(layers, config.diff_ids, strict=True)
    ]
    raw = oci.manifest_json(oci.sha256(config_raw), len(config_raw), blobs)
    manifest = oci.parse_manifest(raw, json.loads(raw), oci.OCI_MANIFEST, oci.sha256(raw))
    found = described(manifest, config_raw, f"{config_name[:120]!r} in the archive", manifest.digest)
    names = tuple(str(parse_reference(tag)) for tag in tags)
    return found, names, [(name, "") for name in layers]


def _layout(files: ArchiveFiles, platform: oci.Platform) -> list[Image]:
    document = oci.load_object(files.read("index.json", oci.MAX_MANIFEST), "index.json in the archive", oci.MAX_MANIFEST)
    entries = oci.parse_index(document, "index.json in the archive")
    if not entries:
        raise FailedPrecondition("index.json in the archive lists no image")
    if len({_name_of(entry) for entry in entries}) == 1 and len(entries) > 1:  # one image for several platforms
        entries = (choose(entries, platform, "the archive"),)
    return [_layout_image(files, entry, platform) for entry in entries]


def _layout_image(files: ArchiveFiles, entry: oci.Descriptor, platform: oci.Platform) -> Image:
    name, target = _name_of(entry), entry
    for _ in range(3):
        what = f"manifest {target.digest} in the archive"
        raw = files.read(_blob(target.digest), oci.MAX_MANIFEST)
        oci.verify(target.digest, raw, what)
        document = oci.load_object(raw, what, oci.MAX_MANIFEST)
        media_type = oci.media_type_of(document, target.media_type)
        if media_type not in oci.INDEX_TYPES:
            break
        target = choose(oci.parse_index(document, what), platform, "the archive")
    manifest = oci.parse_manifest(raw, document, media_type, target.digest)
    config_raw = files.read(_blob(manifest.config.digest), oci.MAX_CONFIG)
    oci.verify(manifest.config.digest, config_raw, f"configuration {manifest.config.digest} in the archive")
    found = described(manifest, config_raw, name or f"manifest {target.digest}", entry.digest)
    return found, (name,) if name else (), [(_blob(layer.digest), layer.digest) for layer in manifest.layers]


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _name_of(entry: oci.Descriptor) -> str:
    """Give the name an image was saved under; a bare tag names no repository and is ignored."""
    text = entry.annotation(FULL_NAME) or entry.annotation(REF_NAME)
    if not any(mark in text for mark in ":/"):
        return ""
    try:
        return str(parse_reference(text))
    except InvalidArgument:
        return ""
