"""Save images: docker save's format for docker, podman and skopeo, or an OCI layout in a tar.

Compressed layers were dropped when they were unpacked, so the layers written are the uncompressed tars, made again from
their recipes and checked against their diff ids; image ids stay what they are. Where compressed blobs are kept the tars come
out of them, and an OCI archive gets the blobs themselves with the very manifest of the registry.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
from typing import TYPE_CHECKING, Any

from shim.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from shim.image import oci
from shim.image.archive.load import FULL_NAME, REF_NAME
from shim.image.reference import parse_reference
from shim.image.tasks import complete

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shim.image.record import ImageRecord
    from shim.image.service import ImageStore
    from shim.store.images import LayerRow

FORMATS = ("docker-archive", "oci-archive")
BLOCK = 512
COPY = 1024 * 1024
END = bytes(2 * BLOCK)
MAX_USTAR = 8 << 30


async def save_archive(store: ImageStore, refs: Sequence[str], out: str | int, format_: str) -> None:
    """Write images to a path or a descriptor; see ImageStore.save."""
    if format_ not in FORMATS or not refs:
        raise InvalidArgument(f"one image or more are saved as one of {', '.join(FORMATS)}")
    wanted: dict[str, tuple[ImageRecord, list[str]]] = {}
    for ref in refs:
        record = store.resolve(ref)
        names = [name for name in record.repo_tags if name == _full(ref)] or list(
            record.repo_tags if _is_id(record, ref) else ()
        )
        wanted.setdefault(record.id, (record, []))[1].extend(names)
    chains = {record.id: tuple(reversed(store.layers.chain(record.chain_id))) for record, _ in wanted.values()}
    kept = {
        layer.chain_id: layer.digest
        for image_id in chains
        for layer in store.catalog.row(image_id).layers
        if store.content.has(layer.digest)
    }
    lost = next((row for chain in chains.values() for row in chain if row.lost and row.chain_id not in kept), None)
    if lost is not None:
        raise FailedPrecondition(f"layer {lost.diff_id} cannot be saved: {lost.lost}; keep_compressed_blobs would keep it")
    with store.layers.lease(row.chain_id for chain in chains.values() for row in chain):
        await _to(out, _Saving(store, list(wanted.values()), chains, kept, format_))


def _is_id(record: ImageRecord, ref: str) -> bool:
    return record.id.startswith((ref, f"sha256:{ref}"))


def _full(ref: str) -> str:
    with contextlib.suppress(InvalidArgument):
        return str(parse_reference(ref))
    return ""


async def _to(out: str | int, saving: _Saving) -> None:
    if isinstance(out, int):
        await saving.write(out)
        return
    try:
        fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise AlreadyExists(f"{out} exists; it is not overwritten") from error
    except OSError as error:
        raise NotFound(f"{out} cannot be created: {error.strerror}") from error
    try:
        await saving.write(fd)
    except BaseException as error:
        os.unlink(out)
        if isinstance(error, OSError):
            raise ResourceExhausted(f"{out} cannot be written: {error.strerror}") from error
        raise
    finally:
        os.close(fd)


class _Saving:
    """One archive being written."""

    def __init__(
        self,
        store: ImageStore,
        images: list[tuple[ImageRecord, list[str]]],
        chains: dict[str, tuple[LayerRow, ...]],
        kept: dict[str, str],
        format_: str,
    ) -> None:
        self._store = store
        self._images = images
        self._chains = chains
        self._kept_blobs = kept
        self._format = format_
        self._fd = -1
        self._written: set[str] = set()

    async def write(self, fd: int) -> None:
        """Write the archive; raise OSError, FailedPrecondition."""
        self._fd = fd
        await (self._docker() if self._format == "docker-archive" else self._layout())
        await self._bytes(END)

    async def _docker(self) -> None:
        manifest = []
        for record, names in self._images:
            config_name = f"{_hex(record.id)}.json"
            await self._file(config_name, self._store.content.read(record.id))
            layers = [f"{_hex(row.diff_id)}.tar" for row in self._chains[record.id]]
            for name, row in zip(layers, self._chains[record.id], strict=True):
                await self._layer(name, row)
            manifest.append({"Config": config_name, "RepoTags": [_familiar(name) for name in names] or None, "Layers": layers})
        await self._file("manifest.json", _json(manifest))

    async def _layout(self) -> None:
        await self._file("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        entries = []
        for record, names in self._images:
            raw, media_type = await self._documents(record)
            await self._file(_blob(oci.sha256(raw)), raw)
            described = {"mediaType": media_type, "digest": oci.sha256(raw), "size": len(raw)}
            annotations = [{FULL_NAME: name, REF_NAME: name.rpartition(":")[2]} for name in names]
            entries.extend([described | {"annotations": each} for each in annotations] or [described])
        await self._file("index.json", _json({"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": entries}))

    async def _documents(self, record: ImageRecord) -> tuple[bytes, str]:
        """Write configuration and layers; give the manifest that fits them and its media type."""
        content, row = self._store.content, self._store.catalog.row(record.id)
        config_raw = content.read(record.id)
        await self._file(_blob(record.id), config_raw)
        if row.layers and all(content.has(layer.digest) for layer in row.layers):
            for kept in row.layers:
                await self._kept(kept.digest)
            return content.read(row.manifest), row.media_type
        blobs = []
        for layer in self._chains[record.id]:
            await self._layer(_blob(layer.diff_id), layer)
            blobs.append({"mediaType": oci.OCI_LAYER, "digest": layer.diff_id, "size": layer.tar_bytes})
        return oci.manifest_json(record.id, len(config_raw), blobs), oci.OCI_MANIFEST

    async def _layer(self, name: str, row: LayerRow) -> None:
        """Write a layer's tar, out of its kept blob or made again, straight into the archive."""
        if name in self._written:
            return
        await self._header(name, row.tar_bytes)
        blob = self._kept_blobs.get(row.chain_id)
        if blob is None:
            await self._retar(row)
        else:
            await self._expand(blob, row)
        await self._bytes(bytes(-row.tar_bytes % BLOCK))

    async def _expand(self, digest: str, row: LayerRow) -> None:
        source = os.open(self._store.content.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        try:
            params = {"op": "spool", "max_bytes": row.tar_bytes, "what": f"layer {row.diff_id}"}
            await self._store.jobs.run(params, (source, self._fd))
        finally:
            os.close(source)

    async def _retar(self, row: LayerRow) -> None:
        layers = self._store.layers
        recipe = os.open(layers.recipe_path(row.name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            params = {"op": "retar", "path": layers.path(row), "diff_id": row.diff_id, "what": f"layer {row.diff_id}"}
            await self._store.jobs.run(params, (recipe, self._fd))
        finally:
            os.close(recipe)

    async def _kept(self, digest: str) -> None:
        if _blob(digest) in self._written:
            return
        source = os.open(self._store.content.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(source).st_size
            await self._header(_blob(digest), size)
            offset = 0
            while data := os.pread(source, COPY, offset):
                offset += len(data)
                await self._bytes(data)
            await self._bytes(bytes(-size % BLOCK))
        finally:
            os.close(source)

    async def _file(self, name: str, data: bytes) -> None:
        if name in self._written:
            return
        await self._header(name, len(data))
        await self._bytes(data + bytes(-len(data) % BLOCK))

    async def _header(self, name: str, size: int) -> None:
        self._written.add(name)
        await self._bytes(_tar_header(name, size))

    async def _bytes(self, data: bytes) -> None:
        await complete(asyncio.to_thread(_write_all, self._fd, data))


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


def _tar_header(name: str, size: int) -> bytes:
    """Give a ustar header of a plain file owned by root, of 1970, so that equal images give equal archives."""
    length = b"%011o\0" % size if size < MAX_USTAR else (1 << 95 | size).to_bytes(12, "big")
    head = name.encode().ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + length + b"00000000000\0"
    tail = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2 + bytes(167)
    return head + b"%06o\0 " % (sum(head) + sum(tail) + 8 * 32) + tail


def _hex(digest: str) -> str:
    return digest.partition(":")[2]


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _familiar(name: str) -> str:
    """Give the short form that docker writes: busybox:latest for docker.io/library/busybox:latest."""
    return name.removeprefix("docker.io/").removeprefix("library/") if name.startswith("docker.io/") else name
