"""Manifests, indexes and configurations that a registry may serve: odd but lawful ones are pulled, others refused by name."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from shim.errors import FailedPrecondition, Unavailable, WherryError
from tests.support import images
from tests.support.images import Layer, TestImage, digest_of, files_layer
from tests.support.imagestore import image_store, remains
from tests.system.test_image_faults import FaultyRegistry

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.system

ONE = files_layer({"a": "1"})
TWO = files_layer({"b": "2"})
IMAGE = TestImage(layers=(ONE, TWO))
Document = dict[str, Any]


async def pulled(tmp_path: Path, manifest: bytes, blobs: dict[str, bytes]) -> tuple[str, ...]:
    """Pull from a registry that serves `manifest` for every name and give the layers' places."""
    server = FaultyRegistry(IMAGE)
    server.manifest, server.blobs = manifest, blobs
    await server.start()
    try:
        async with image_store(tmp_path / "root", retries=0) as store:
            return store.layer_paths(await store.pull(f"{server.host}/app:1", None))
    finally:
        await server.stop()


def changed(change: Callable[[Document], object], image: TestImage = IMAGE) -> bytes:
    document = json.loads(image.manifest)
    change(document)
    return json.dumps(document).encode()


def descriptor(blob: bytes, media_type: str = images.OCI["gzip"]) -> Document:
    return {"mediaType": media_type, "digest": digest_of(blob), "size": len(blob)}


def index(*entries: Document) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": images.OCI["index"], "manifests": entries}).encode()


def last(**fields: object) -> Callable[[Document], object]:
    return lambda document: document["layers"][-1].update(fields)


REFUSED: dict[str, tuple[bytes, str]] = {
    "schema 1": (b'{"schemaVersion": 1, "name": "app", "fsLayers": [{"blobSum": "x"}]}', "schema 1"),
    "no JSON": (b"<html>", "not JSON"),
    "a list": (b"[]", "not a JSON object"),
    "deep": (b"[" * 100_000 + b"]" * 100_000, "not JSON"),
    "huge": (b'{"x": "' + b"y" * (5 << 20) + b'"}', "larger"),
    "nothing": (b"{}", "no layers"),
    "both kinds": (changed(lambda document: document.update(manifests=[])), "index too"),
    "an artifact": (
        changed(lambda document: document.update(mediaType="application/vnd.example+json")),
        "unsupported media type",
    ),
    "an index of nothing": (index(), "linux"),
    "an index of too many": (index(*[descriptor(b"")] * 1001), "1000"),
    "an index of itself": (
        index(descriptor(b"me", images.OCI["index"]) | {"platform": {"os": "linux", "architecture": "amd64"}}),
        "",
    ),
    "a digest of no kind": (changed(last(digest="md5:abc")), "digest"),
    "a digest that is a path": (changed(last(digest="sha256:../../../../etc/passwd")), "digest"),
    "no digest": (changed(last(digest="")), "digest"),
    "a negative size": (changed(last(size=-1)), "size"),
    "a size of words": (changed(last(size="many")), "size"),
    "a size too small": (changed(last(size=3)), ""),
    "a layer missing": (changed(lambda document: document["layers"].pop()), "layers"),
    "a layer too many": (changed(lambda document: document["layers"].append(document["layers"][0])), "layers"),
    "layers exchanged": (changed(lambda document: document["layers"].reverse()), "the image says"),
    "a configuration that is a layer": (changed(lambda document: document.update(config=descriptor(ONE.blob))), ""),
    "no configuration": (changed(lambda document: document.pop("config")), "config"),
}


@pytest.mark.parametrize(("manifest", "told"), REFUSED.values(), ids=REFUSED.keys())
async def test_refused(tmp_path: Path, manifest: bytes, told: str) -> None:
    with pytest.raises(WherryError) as caught:
        await pulled(tmp_path, manifest, IMAGE.blobs())
    assert caught.value.code in {"FAILED_PRECONDITION", "NOT_FOUND", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}, str(
        caught.value
    )
    assert told in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert remains(tmp_path / "root") == []


def members(blob: bytes) -> bytes:
    """Compress in two gzip members with an empty one between them (RFC 1952, 2.2)."""
    return gzip.compress(blob[:300], mtime=0) + gzip.compress(b"", mtime=0) + gzip.compress(blob[300:], mtime=0)


def frames(blob: bytes) -> bytes:
    """Compress in zstd frames with one to be skipped behind them, as zstd:chunked has its contents (RFC 8878, 3.1.2)."""
    squeeze = zstandard.ZstdCompressor().compress
    return squeeze(blob[:300]) + squeeze(blob[300:]) + bytes.fromhex("502a4d18 08000000") + b"contents"


def seekable(layer: Layer) -> bytes:
    """Compress as eStargz: a member for each file, a table of contents as the last file, a footer of an empty member."""
    return members(layer.tar)


LAWFUL: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip members": (images.OCI["gzip"], members),
    "zstd frames": (images.OCI["zstd"], frames),
    "gzip said to be none": (images.OCI[""], members),
    "Docker's zstd": (images.DOCKER["zstd"], frames),
    "not distributable": ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", members),
    "foreign": ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", members),
}


@pytest.mark.parametrize(("media_type", "pack"), LAWFUL.values(), ids=LAWFUL.keys())
async def test_lawful(tmp_path: Path, media_type: str, pack: Callable[[bytes], bytes]) -> None:
    blob = pack(TWO.tar)
    manifest = changed(lambda document: document["layers"].__setitem__(1, descriptor(blob, media_type)))
    top, base = await pulled(tmp_path, manifest, IMAGE.blobs() | {digest_of(blob): blob})
    assert (Path(base, "a").read_text(), Path(top, "b").read_text()) == ("1", "2")


async def test_empty_and_repeated_layers(tmp_path: Path) -> None:
    """Nothing but an archive's end, and not even that; the same layer twice is there twice."""
    image = TestImage(layers=(ONE, Layer(tar=bytes(1024)), ONE, Layer(tar=b"", compression=""), TWO))
    places = await pulled(tmp_path, image.manifest, image.blobs())
    assert [os.listdir(place) for place in places] == [["b"], [], ["a"], [], ["a"]]


@pytest.mark.parametrize("kind", ["tar+brotli", "tar+gzip+encrypted", "squashfs"])
async def test_a_layer_of_an_unknown_kind(tmp_path: Path, kind: str) -> None:
    """Its bytes decide, since builders err in words; what is no tar is told with the words it came with."""
    media_type = f"application/vnd.oci.image.layer.v1.{kind}"
    top, _base = await pulled(tmp_path / "well", changed(last(mediaType=media_type)), IMAGE.blobs())
    assert Path(top, "b").read_text() == "2"
    blob = os.urandom(5000)
    manifest = changed(lambda document: document["layers"].__setitem__(1, descriptor(blob, media_type)))
    with pytest.raises(FailedPrecondition, match=kind.replace("+", r"\+")):
        await pulled(tmp_path / "ill", manifest, IMAGE.blobs() | {digest_of(blob): blob})
    assert remains(tmp_path / "ill" / "root") == []


async def test_a_layer_shorter_than_it_is_said_to_be(tmp_path: Path) -> None:
    """The registry may have it whole next time."""
    with pytest.raises(Unavailable, match="bytes too early"):
        await pulled(tmp_path, changed(last(size=1 << 60)), IMAGE.blobs())
    assert remains(tmp_path / "root") == []
