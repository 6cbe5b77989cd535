"""Load and save: docker archives and OCI layouts, judged by skopeo and umoci."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard

from shim.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from tests.support import images
from tests.support.images import TestImage, entry, folder
from tests.support.imagestore import image_store, mounted, remains

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def image() -> TestImage:
    odd = images.layer(
        [
            entry("etc/.wh.group"),
            entry("long/" + "n" * 120, "long name"),
            entry("bin/copy", type=tarfile.LNKTYPE, linkname="bin/busybox"),
            entry("x" * 90, "1", mtime=1_700_000_000.123456789),
            folder("empty"),
        ],
        "zstd",
    )
    return images.busybox_image(extra=(odd, images.files_layer({"big": os.urandom(700_001)}, "")))


def skopeo(*arguments: str) -> str:
    run = subprocess.run(["skopeo", "--insecure-policy", *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
async def test_saved_archives_are_what_peers_read(
    tmp_path: Path, image: TestImage, form: str, tool: Callable[[str], str]
) -> None:
    tool("skopeo")
    source = tmp_path / "source.tar"
    source.write_bytes(images.docker_archive({"example.com/team/app:v1": image}))
    out = tmp_path / "out.tar"
    async with image_store(tmp_path / "a") as store:
        assert await store.load(str(source)) == ["example.com/team/app:v1"]
        await store.tag(image.id, "short")
        await store.save(["example.com/team/app:v1", "short"], str(out), form)
        assert store.resolve("short").repo_tags == ("docker.io/library/short:latest", "example.com/team/app:v1")
        with pytest.raises(AlreadyExists):
            await store.save(["short"], str(out), form)
        again = tmp_path / "again.tar"
        await store.save(["example.com/team/app:v1", "short"], str(again), form)
        assert again.read_bytes() == out.read_bytes()
    name = "example.com/team/app:v1" if form == "docker-archive" else "v1"
    config = json.loads(skopeo("inspect", "--config", "--raw", f"{form}:{out}:{name}"))
    assert config["rootfs"]["diff_ids"] == [images.digest_of(layer.tar) for layer in image.layers]
    skopeo("copy", f"{form}:{out}:{name}", f"oci:{tmp_path}/layout:x")  # reads and checks every layer
    async with image_store(tmp_path / "b") as store:
        names = await store.load(str(out))
        assert sorted(names) == ["docker.io/library/short:latest", "example.com/team/app:v1"]
        assert store.resolve("short").id == image.id


async def test_load_from_everywhere(tmp_path: Path, image: TestImage) -> None:
    plain = images.docker_archive({"app:1": image})
    for name, data in (("p", plain), ("g", gzip.compress(plain, 1)), ("z", zstandard.compress(plain))):
        root = tmp_path / name
        path = tmp_path / f"{name}.tar"
        path.write_bytes(data)
        async with image_store(root) as store:
            assert await store.load(str(path)) == ["docker.io/library/app:1"]
            await store.remove("app:1")
        assert remains(root) == []
    reading, writing = os.pipe()
    feeder = subprocess.Popen(["cat", str(tmp_path / "g.tar")], stdout=writing)
    os.close(writing)
    try:
        async with image_store(tmp_path / "pipe") as store:
            assert await store.load(reading) == ["docker.io/library/app:1"]
    finally:
        os.close(reading)
        feeder.wait(10)


async def test_layouts_of_skopeo_and_umoci(tmp_path: Path, image: TestImage, tool: Callable[[str], str]) -> None:
    tool("skopeo")
    source = tmp_path / "source.tar"
    source.write_bytes(images.docker_archive({"app:1": image}))
    layout = tmp_path / "layout"
    skopeo("copy", f"docker-archive:{source}", f"oci:{layout}:app:1")
    subprocess.run([tool("umoci"), "config", "--image", f"{layout}:app:1", "--config.workingdir", "/srv"], check=True)
    skopeo("copy", f"oci:{layout}:app:1", f"oci-archive:{tmp_path}/layout.tar:team/app:2")
    async with image_store(tmp_path / "a") as store:
        assert await store.load(str(tmp_path / "layout.tar")) == ["docker.io/team/app:2"]
        record = store.resolve("team/app:2")
        assert record.config.working_dir == "/srv"
        with mounted(store.layer_paths(record.id)) as merged:
            assert not (merged / "etc/group").exists()
            assert (merged / "bin/copy").samefile(merged / "bin/copy")
            assert (merged / "bin/copy").stat().st_size == (merged / "bin/busybox").stat().st_size
    async with image_store(tmp_path / "b") as store:
        (name,) = await store.load(str(layout))
        assert store.resolve(name).config.working_dir == "/srv"


async def test_a_layer_that_cannot_be_made_again(tmp_path: Path) -> None:
    twice = TestImage(layers=(images.layer([entry("a", "first"), entry("a", "second")]),))
    path = tmp_path / "x.tar"
    path.write_bytes(images.docker_archive({"twice:1": twice, "good:1": TestImage(layers=(images.files_layer({"b": "1"}),))}))
    async with image_store(tmp_path / "a") as store:
        await store.load(str(path))
        with pytest.raises(FailedPrecondition, match="twice in the layer"):
            await store.save(["twice:1"], str(tmp_path / "out.tar"))
        with pytest.raises(NotFound):
            await store.save(["missing:1"], str(tmp_path / "out.tar"))
        with pytest.raises(InvalidArgument):
            await store.save([], str(tmp_path / "out.tar"))
        (layer,) = store.layer_paths("good:1")
        with open(f"{layer}/b", "w", encoding="ascii") as file:
            file.write("2")
        with pytest.raises(FailedPrecondition, match="changed since it was unpacked"):
            await store.save(["good:1"], str(tmp_path / "out.tar"))
        assert not (tmp_path / "out.tar").exists()


async def test_tags_move_and_pins_show(tmp_path: Path) -> None:
    one, two = (TestImage(layers=(images.files_layer({"a": text}),)) for text in ("1", "2"))
    path = tmp_path / "x.tar"
    path.write_bytes(images.docker_archive({"one:1": one, "two:1": two}))
    async with image_store(tmp_path / "a", pinned=("one:1",)) as store:
        await store.load(str(path))
        assert store.resolve("one:1").pinned
        assert not store.resolve("two:1").pinned
        await store.tag("two:1", "one:1")
        assert store.resolve("one:1").id == two.id
        assert store.resolve("one:1").pinned
        assert store.resolve(one.id[7:19]).repo_tags == ()
        with pytest.raises(NotFound):
            await store.tag("three:1", "x")
        with pytest.raises(InvalidArgument):
            await store.tag("two:1", "app/UPPER")
        usage = store.filesystem_usage()
        assert usage.used_bytes > 0
        assert usage.inodes_used > 0
        await store.remove("two:1")
        with pytest.raises(NotFound):
            store.resolve("one:1")
