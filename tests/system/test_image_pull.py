"""Pull from Debian's docker-registry: formats, platforms, sharing, what a merged root looks like."""

from __future__ import annotations

import asyncio
import glob
import os
import stat
import tarfile
import threading
from typing import TYPE_CHECKING

import pytest

from shim.errors import InvalidArgument, NotFound, Unavailable
from shim.image.config import ImageConfig
from shim.image.content import Syncer
from shim.image.service import ImageStore
from shim.store.database import Database
from tests.support import images
from tests.support.images import DOCKER, TestImage, entry, folder
from tests.support.imagestore import JOBS, image_store, mounted, remains
from tests.support.monitors import spawner
from tests.support.registry import Registry, free_port
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shim.image.record import LayerProgress

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    server = Registry(tmp_path_factory.mktemp("registry")).start()
    yield server
    server.stop()


@pytest.mark.parametrize("media", [images.OCI, DOCKER], ids=["oci", "docker"])
@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
async def test_pull_unpack_and_prepare(tmp_path: Path, registry: Registry, media: dict[str, str], compression: str) -> None:
    if media is DOCKER and compression == "zstd":
        pytest.skip("Docker has no media type for zstd")
    base = images.layer(images.busybox_entries(), compression)
    image = TestImage(layers=(base, images.files_layer({"etc/motd": "hello"}, compression)), media=media)
    reference = registry.push("formats", f"x{compression or 'plain'}", image)
    root = tmp_path / "root"
    async with image_store(root) as store:
        assert await store.pull(reference, None) == image.id
        record = store.resolve(reference)
        assert record.id == image.id
        assert record.repo_tags == (reference,)
        assert record.repo_digests == (f"{registry.host}/formats@{images.digest_of(image.manifest)}",)
        container = tmp_path / "container"
        rootfs = await store.prepare_rootfs("c1", image.id, str(container))
        assert rootfs.lower == store.layer_paths(image.id)
        assert stat.S_IMODE(os.stat(rootfs.upper or "").st_mode) == 0o755
        with mounted(rootfs.lower) as merged:
            assert (merged / "etc/motd").read_text() == "hello"
            assert (merged / "bin/sh").samefile(merged / "bin/busybox")
            assert stat.S_IMODE((merged / "tmp").stat().st_mode) == 0o1777
        await store.remove(image.id)
        assert store.list() == []
        assert os.path.isdir(rootfs.lower[0])  # the container stands on it
        await store.remove_rootfs("c1")
        assert os.listdir(container) == []
    assert remains(root) == []


async def test_a_layer_that_waits_for_the_disk_holds_up_no_other_and_they_share_what_it_waits_for(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one slot, and a disk that is slow once: the others are unpacked meanwhile, and need one more syncfs together."""
    count = 5
    layers = tuple(images.files_layer({f"file-{number}": "x"}) for number in range(count))
    reference = registry.push("many", "1", TestImage(layers=layers))
    slow, syncs = threading.Event(), []
    syncfs = Syncer._syncfs

    def counted(syncer: Syncer) -> None:
        syncs.append(syncer)
        assert slow.wait(30)
        syncfs(syncer)

    async with image_store(tmp_path / "root", parallel_layers=1) as store:
        monkeypatch.setattr(Syncer, "_syncfs", counted)
        try:
            pulling = asyncio.ensure_future(store.pull(reference, None))
            unpacked = str(tmp_path / "root/layers/partial-*/file-*")
            await asyncio.to_thread(wait_for, lambda: len(glob.glob(unpacked)) == count, "all to be unpacked")
        finally:
            slow.set()
        await pulling
        assert len(syncs) < count
        with mounted(store.layer_paths(store.resolve(reference).id)) as merged:
            assert len([*merged.iterdir()]) == count


async def test_index_by_platform_and_digest(tmp_path: Path, registry: Registry) -> None:
    ours = images.TestImage(layers=(images.files_layer({"who": "amd64"}),))
    other = images.TestImage(layers=(images.files_layer({"who": "arm"}),), architecture="arm64")
    reference = registry.push_index("multi", "1", {"linux/arm64/v8": other, "linux/amd64": ours})
    async with image_store(tmp_path / "a", platform="linux/amd64") as store:
        assert await store.pull(reference, None) == ours.id
        (by_digest,) = store.resolve(ours.id).repo_digests
    async with image_store(tmp_path / "b", platform="linux/arm64") as store:
        assert await store.pull(by_digest, None) == other.id
        assert store.resolve(by_digest).repo_tags == ()
    async with image_store(tmp_path / "c", platform="linux/s390x") as store:
        with pytest.raises(NotFound, match="linux/amd64, linux/arm64"):
            await store.pull(reference, None)


async def test_only_missing_layers_are_fetched(tmp_path: Path, registry: Registry) -> None:
    base = images.files_layer({"base": "x" * 1000})
    first = TestImage(layers=(base, images.files_layer({"one": "1"})))
    second = TestImage(layers=(base, images.files_layer({"two": "2"})))
    references = registry.push("share", "1", first), registry.push("share", "2", second)
    async with image_store(tmp_path) as store:
        await store.pull(references[0], None)
        phases: list[tuple[str, str]] = []

        def note(progress: LayerProgress) -> None:
            phases.append((progress.digest, progress.phase))

        await store.pull(references[1], None, progress=note)
        assert (images.digest_of(base.blob), "exists") in phases
        assert {digest for digest, phase in phases if phase == "done"} == {images.digest_of(second.layers[1].blob)}
        assert store.layer_paths(first.id)[1] == store.layer_paths(second.id)[1]
        await store.remove(first.id)
        assert len(os.listdir(tmp_path / "layers")) == 2 + 3
        assert len(store.list()) == 1


async def test_the_merged_root_means_what_the_layers_say(tmp_path: Path, registry: Registry) -> None:
    """Whiteouts, opaque directories, implicit parents, links into lower layers, ids, modes, times, devices, xattrs."""
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    xattrs = {"security.capability": capability, "user.note": b"n", "trusted.overlay.opaque": b"y"}
    base = images.layer(
        [
            folder("etc"),
            entry("etc/gone", "1"),
            entry("etc/stays", "2", mode=0o4755, uid=1000, gid=1001),
            entry("opaque", type=tarfile.DIRTYPE, mode=0o2770, uid=5, gid=6),
            entry("opaque/hidden", "3"),
            entry("owned", type=tarfile.DIRTYPE, mode=0o750, uid=7, gid=8),
            entry("usr", type=tarfile.DIRTYPE),
            entry("usr/lib", type=tarfile.DIRTYPE),
            entry("lib", type=tarfile.SYMTYPE, linkname="usr/lib"),
            entry("ping", "p", pax_headers={f"SCHILY.xattr.{name}": value.decode() for name, value in xattrs.items()}),
            entry("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            entry("pipe", type=tarfile.FIFOTYPE, mode=0o600),
        ]
    )
    top = images.layer(
        [
            entry("etc/.wh.gone"),
            folder("opaque"),
            entry("opaque/.wh..wh..opq"),
            entry("opaque/new", "4"),
            entry("owned/implicit", "5"),
            entry("lib/through-link", "6"),
            entry("etc/linked", type=tarfile.LNKTYPE, linkname="etc/stays"),
            entry("etc/linked-again", type=tarfile.LNKTYPE, linkname="etc/linked"),
            entry("abs", type=tarfile.SYMTYPE, linkname="/etc/stays"),
        ]
    )
    image = TestImage(layers=(base, top))
    reference = registry.push("meaning", "1", image)
    async with image_store(tmp_path) as store:
        await store.pull(reference, None)
        with mounted(store.layer_paths(image.id)) as merged:
            assert sorted(os.listdir(merged / "etc")) == ["linked", "linked-again", "stays"]
            assert os.listdir(merged / "opaque") == ["new"]
            status = (merged / "owned").stat()
            assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o750, 7, 8)
            assert (merged / "lib").is_symlink()
            assert (merged / "usr/lib/through-link").read_text() == "6"
            linked = (merged / "etc/linked").stat()
            assert (stat.S_IMODE(linked.st_mode), linked.st_uid, linked.st_gid) == (0o4755, 1000, 1001)
            assert linked.st_ino == (merged / "etc/linked-again").stat().st_ino
            assert linked.st_mtime == 1_700_000_000
            assert (merged / "null").stat().st_rdev == os.makedev(1, 3)
            assert stat.S_ISFIFO((merged / "pipe").stat().st_mode)
            assert (merged / "opaque").stat().st_mtime == 1_700_000_000
            assert os.getxattr(merged / "ping", "security.capability") == capability
            assert os.getxattr(merged / "ping", "user.note") == b"n"
        assert sorted(os.listxattr(f"{store.layer_paths(image.id)[1]}/ping")) == ["security.capability", "user.note"]


async def test_a_hard_link_to_a_file_below_more_than_one_layer(tmp_path: Path, registry: Registry) -> None:
    """The file is copied up from where the layers below are merged, which is another file system than the layer's."""
    text = "x" * 100_000
    link = images.layer([entry("bin/other", type=tarfile.LNKTYPE, linkname="bin/tool")])
    image = TestImage(layers=(images.files_layer({"bin/tool": text}), images.files_layer({"between": "1"}), link))
    reference = registry.push("linked", "1", image)
    async with image_store(tmp_path) as store:
        await store.pull(reference, None)
        with mounted(store.layer_paths(image.id)) as merged:
            assert (merged / "bin/other").read_text() == text


async def test_120_layers(tmp_path: Path, registry: Registry) -> None:
    image = TestImage(layers=tuple(images.files_layer({f"f{n}": str(n)}) for n in range(120)))
    reference = registry.push("many", "1", image)
    async with image_store(tmp_path) as store:
        await store.pull(reference, None)
        with mounted(store.layer_paths(image.id)) as merged:
            assert len(os.listdir(merged)) == 120
        assert len(",".join(os.path.basename(path) for path in store.layer_paths(image.id))) < 400


async def test_concurrent_pulls_share(tmp_path: Path, registry: Registry) -> None:
    image = TestImage(layers=(images.files_layer({"big": os.urandom(3_000_000)}), images.files_layer({"a": "1"})))
    references = [registry.push("twice", "1", image), registry.push("twice", "2", image)]
    async with image_store(tmp_path) as store:
        made: list[str] = []
        run = store.jobs.run

        async def counted(params: dict[str, object], fds: tuple[int, ...] = ()) -> dict[str, object]:
            made.append(str(params["op"]))
            return await run(params, fds)

        store.jobs.run = counted  # type: ignore[method-assign,assignment]  # count the unpackings
        await asyncio.gather(*(store.pull(reference, None) for reference in references * 3))
        assert made == ["unpack", "unpack"]
        assert store.resolve(image.id).repo_tags == tuple(references)


async def test_errors_name_their_cause(tmp_path: Path, registry: Registry) -> None:
    async with image_store(tmp_path) as store:
        with pytest.raises(NotFound, match="is not in the registry"):
            await store.pull(f"{registry.host}/nothing:1", None)
        with pytest.raises(NotFound):
            await store.pull(f"{registry.host}/nothing@sha256:{'0' * 64}", None)
        with pytest.raises(Unavailable, match=r"^RegistryUnavailable: "):
            await store.pull(f"127.0.0.1:{free_port()}/x:1", None)
        with pytest.raises(InvalidArgument):
            await store.pull("Not A Reference", None)
    assert remains(tmp_path) == []


async def test_restart_finds_images_and_drops_damage(tmp_path: Path, registry: Registry) -> None:
    one = TestImage(layers=(images.files_layer({"a": "1"}),))
    two = TestImage(layers=(images.files_layer({"b": "2"}),))
    names = registry.push("restart", "1", one), registry.push("restart", "2", two)
    async with image_store(tmp_path) as store:
        for name in names:
            await store.pull(name, None)
        await store.prepare_rootfs("c", one.id, str(tmp_path / "c"))
        config = store.content.path(two.id)
    (tmp_path / "layers/partial-zz").mkdir()
    (tmp_path / "layers/zy").mkdir()
    (tmp_path / "layers/zy/file").write_text("x")
    (tmp_path / "content/partial/9").write_text("x")
    os.truncate(config, 3)
    database = Database.open(str(tmp_path / "wherry.db"))
    async with spawner(JOBS) as (client, _process):
        store = ImageStore(ImageConfig(), str(tmp_path), database, client)
        (problem,) = await store.start()
        assert two.id in problem
        assert [record.id for record in store.list()] == [one.id]
        assert store.resolve(names[0]).id == one.id
        assert store.rootfs_containers() == ("c",)
        await store.remove_rootfs("c")
        await store.remove(names[0])
        await store.stop()
    database.close()
    assert remains(tmp_path) == []
