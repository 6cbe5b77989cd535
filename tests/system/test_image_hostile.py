"""Images that mean harm, or are broken: each is refused with a clear error, or contained, and nothing is left."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from shim.errors import FailedPrecondition, NotFound, ResourceExhausted, WherryError
from shim.image.unpack import writer
from shim.image.unpack.recipe import Recorder
from shim.image.unpack.streams import Source, open_stream
from shim.image.unpack.tar import Limits, TarInput, TarReader
from tests.support import images
from tests.support.images import Layer, TestImage, digest_of, entry, folder
from tests.support.imagestore import image_store, remains

if TYPE_CHECKING:
    from pathlib import Path

    from shim.image.service import ImageStore

pytestmark = pytest.mark.system


def archive(image: TestImage, **changed: bytes) -> bytes:
    """Pack an OCI layout; `changed` replaces files ("index.json" as index_json) or blobs by digest."""
    index = {"schemaVersion": 2, "manifests": [_described(image.manifest)]}
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    for digest, data in {digest_of(image.manifest): image.manifest, **image.blobs()}.items():
        files["blobs/" + digest.replace(":", "/")] = changed.get(digest, data)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _described(manifest: bytes) -> dict[str, object]:
    return {"mediaType": images.OCI["manifest"], "digest": digest_of(manifest), "size": len(manifest)}


async def load(store: ImageStore, folder_: Path, image: TestImage, **changed: bytes) -> str:
    path = folder_ / "hostile.tar"
    path.write_bytes(archive(image, **changed))
    try:
        (name,) = await store.load(str(path))
    finally:
        path.unlink()
    return name


REFUSED = {
    "dot-dot": [entry("../escape", "x")],
    "dot-dot in the middle": [folder("a"), entry("a/../../escape", "x")],
    "dot-dot hard link": [entry("link", type=tarfile.LNKTYPE, linkname="../../../etc/passwd")],
    "hard link to nothing": [entry("link", type=tarfile.LNKTYPE, linkname="etc/shadow")],
    "hard link through a link out": [
        entry("out", type=tarfile.SYMTYPE, linkname="../../../../../../"),
        entry("link", type=tarfile.LNKTYPE, linkname="out/etc/hostname"),
    ],
    "hard link to a directory": [folder("d"), entry("link", type=tarfile.LNKTYPE, linkname="d")],
    "links in a circle": [
        entry("a", type=tarfile.SYMTYPE, linkname="b"),
        entry("b", type=tarfile.SYMTYPE, linkname="a"),
        entry("a/file", "x"),
    ],
    "a file as a parent": [entry("f", "x"), entry("f/g", "y")],
    "a file as the root": [entry(".", "x")],
    "a whiteout of nothing": [entry(".wh.", "")],
    "a whiteout of dot-dot": [folder("a"), entry("a/.wh...", "")],
    "a name too long": [entry("n" * 256, "x")],
    "a path too long": [entry("/".join(["d" * 200] * 25), "x")],
    "an owner out of range": [entry("f", "x", uid=0xFFFFFFFF)],
    "a device out of range": [entry("d", type=tarfile.CHRTYPE, devmajor=2_000_000, devminor=1)],
    "an unknown member": [entry("f", "", type=b"Z")],
    "a sparse file without a map": [
        entry("f", "", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"})
    ],
}


@pytest.mark.parametrize("entries", REFUSED.values(), ids=REFUSED.keys())
async def test_refused(tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    root = tmp_path / "root"
    async with image_store(root) as store:
        with pytest.raises((FailedPrecondition, NotFound), match="layer 1 of 1"):
            await load(store, tmp_path, TestImage(layers=(images.layer(entries),)))
        assert store.list() == []
    assert remains(root) == []


async def test_escapes_are_contained(tmp_path: Path) -> None:
    """Absolute names and links out of the image stay names inside it."""
    marker = tmp_path / "outside"
    marker.mkdir()
    image = TestImage(
        layers=(
            images.layer(
                [
                    entry("/absolute", "1"),
                    entry("out", type=tarfile.SYMTYPE, linkname=str(marker)),
                    entry("out/through", "2"),
                    entry("up", type=tarfile.SYMTYPE, linkname="../../../../../.." + str(marker)),
                    entry("up/again", "3"),
                    entry("proc", type=tarfile.SYMTYPE, linkname="/self/1/root"),
                    entry("proc/x", "4"),
                    entry("disk", type=tarfile.BLKTYPE, devmajor=8, devminor=0),
                    entry("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
                ]
            ),
        )
    )
    async with image_store(tmp_path / "root") as store:
        await load(store, tmp_path, image)
        (layer,) = store.layer_paths(image.id)
        assert os.listdir(marker) == []
        assert sorted(os.listdir(f"{layer}{marker}")) == ["again", "through"]
        assert os.path.isfile(f"{layer}/absolute")
        assert os.path.isfile(f"{layer}/self/1/root/x")


@pytest.mark.parametrize(
    ("settings", "entries", "told"),
    [
        ({"max_layer_bytes": 1_000_000}, [entry("big", bytes(2_000_000))], "max_layer_bytes"),
        ({"max_layer_entries": 50}, [entry(f"f{n}", "") for n in range(100)], "max_layer_entries"),
        ({}, [entry("zeros", bytes(400_000_000))], "max_ratio"),
    ],
    ids=["bytes", "entries", "ratio"],
)
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
async def test_bombs(
    tmp_path: Path, settings: dict[str, int], entries: list[tuple[tarfile.TarInfo, bytes]], told: str, compression: str
) -> None:
    root = tmp_path / "root"
    async with image_store(root, **settings) as store:
        with pytest.raises(ResourceExhausted, match=told):
            await load(store, tmp_path, TestImage(layers=(images.layer(entries, compression),)))
    assert remains(root) == []


async def test_damage(tmp_path: Path) -> None:
    """Wrong digests, truncation, garbage, a lying configuration: refused, and nothing is left."""
    good = TestImage(layers=(images.files_layer({"a": "1" * 10_000}), images.files_layer({"b": os.urandom(100_000)})))
    digests = [digest_of(layer.blob) for layer in good.layers]
    blob = good.layers[1].blob
    root = tmp_path / "root"
    cases: list[tuple[dict[str, bytes], str]] = [
        ({digests[1]: blob[:-5]}, "expected sha256"),
        ({digests[1]: blob[:50_000]}, "expected sha256"),
        ({digests[1]: gzip.compress(b"not a tar" * 1000)}, "expected sha256"),
        ({digests[0]: os.urandom(5000)}, "expected sha256"),
        ({good.id: b"{}"}, "expected sha256"),
        ({digest_of(good.manifest): b"{}"}, "expected sha256"),
    ]
    async with image_store(root) as store:
        for changed, told in cases:
            with pytest.raises(FailedPrecondition, match=told):
                await load(store, tmp_path, good, **changed)
        for layer in (Layer(tar=b"no tar at all" * 100), Layer(tar=good.layers[0].tar[:700])):
            with pytest.raises(FailedPrecondition, match="tar"):
                await load(store, tmp_path, TestImage(layers=(layer,)))
        with pytest.raises(FailedPrecondition, match="the image says"):
            await load(store, tmp_path, _Lying(layers=good.layers))
        assert store.list() == []
    assert remains(root) == []


class _Lying(TestImage):
    """Says another diff id than its layer has."""

    @property
    def config_blob(self) -> bytes:
        return super().config_blob.replace(digest_of(self.layers[0].tar).encode(), b"sha256:" + b"0" * 64)


async def test_archives_that_are_none(tmp_path: Path) -> None:
    root = tmp_path / "root"
    path = tmp_path / "file"
    async with image_store(root) as store:
        for data in (b"", b"garbage" * 1000, bytes(10240), gzip.compress(b"x" * 5000), b"\x1f\x8b\x08garbage"):
            path.write_bytes(data)
            with pytest.raises(WherryError):
                await store.load(str(path))
        with pytest.raises(NotFound):
            await store.load(str(tmp_path / "missing"))
        image = TestImage(layers=(images.files_layer({"a": "1"}),))
        with pytest.raises(FailedPrecondition):
            await load(store, tmp_path, replace(image, media=images.OCI | {"manifest": "application/x-unknown"}))
    assert remains(root) == []


async def test_disk_full(tmp_path: Path) -> None:
    """A layer that does not fit says so and leaves nothing."""
    root = tmp_path / "small"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(root)], check=True)
    try:
        async with image_store(root) as store:
            fits = TestImage(layers=(images.files_layer({"a": os.urandom(500_000)}),))
            large = TestImage(layers=(*fits.layers, images.files_layer({"b": os.urandom(20_000_000)})))
            with pytest.raises(ResourceExhausted, match="no space left"):
                await load(store, tmp_path, large)
            assert store.list() == []
            assert remains(root) == []
            await load(store, tmp_path, fits)
            assert len(store.list()) == 1
    finally:
        subprocess.run(["umount", str(root)], check=True)


def _bomb(kind: str) -> list[tuple[tarfile.TarInfo, bytes]]:
    if kind == "access lists":
        lists = {"SCHILY.xattr.system.posix_acl_default": "\0" * 60_000}
        return [entry(f"d{number}", type=tarfile.DIRTYPE, pax_headers=lists) for number in range(40)]
    return [entry("/".join([f"d{number}", *["d"] * 1500, "f"]), "") for number in range(5)]


@pytest.mark.parametrize("kind", ["access lists", "implicit directories"])
def test_what_is_kept_of_a_layer_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Lists and names compress as well as zeros, and the directories above a file are no entries of their own."""
    monkeypatch.setattr(writer, "MOST_HELD", 2_000_000)
    path, said = tmp_path / "layer.tar", tmp_path / "said"
    path.write_bytes(images.layer(_bomb(kind)).tar)
    (tmp_path / "root").mkdir()
    limits = Limits(max_bytes=1 << 30, max_entries=1000, max_ratio=500)
    pid = os.fork()
    if pid == 0:
        told = os.open(said, os.O_WRONLY | os.O_CREAT)
        try:
            source = Source(os.open(path, os.O_RDONLY), offset=0, length=path.stat().st_size)
            recorder = Recorder(os.open(os.devnull, os.O_WRONLY))
            os.chroot(tmp_path / "root")
            writer.LayerWriter(TarReader(TarInput(open_stream(source), source, limits), recorder, limits), recorder).run()
        except BaseException as error:  # noqa: BLE001 - it is told, and nothing may return into the test
            os.write(told, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert (
        said.read_text() == "ResourceExhausted: the layer's names and access lists take more than 1 MiB: it looks like a bomb"
    )


async def test_an_access_list_that_is_none(tmp_path: Path) -> None:
    async with image_store(tmp_path / "root") as store:
        with pytest.raises(
            FailedPrecondition, match="directory '/d0' of the layer has a default access list that cannot be set"
        ):
            await load(store, tmp_path, TestImage(layers=(images.layer(_bomb("access lists")),)))
    assert remains(tmp_path / "root") == []
