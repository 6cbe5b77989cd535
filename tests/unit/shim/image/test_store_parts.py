"""Documents, platforms, names in memory, deep trees, joined tasks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies

from shim.errors import FailedPrecondition, InvalidArgument, NotFound, WherryError
from shim.image import oci
from shim.image.platform import choose, host_platform
from shim.image.tasks import Joined, all_or_none, complete
from shim.image.unpack.remove import remove_tree
from shim.store.images import LayerRow, unused_layers

if TYPE_CHECKING:
    from pathlib import Path


def descriptor(platform: str) -> oci.Descriptor:
    return oci.Descriptor(digest=oci.sha256(platform.encode()), size=1, media_type="", platform=oci.parse_platform(platform))


def test_platforms() -> None:
    entries = tuple(
        descriptor(name) for name in ("linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64", "windows/amd64")
    )
    chosen = {
        wanted: str(choose(entries, oci.parse_platform(wanted), "x").platform)
        for wanted in ("linux/amd64", "linux/arm/v7", "linux/arm/v8", "linux/arm64/v8", "linux/arm/v6")
    }
    assert chosen == {
        "linux/amd64": "linux/amd64",
        "linux/arm/v7": "linux/arm/v7",
        "linux/arm/v8": "linux/arm/v7",
        "linux/arm64/v8": "linux/arm64",
        "linux/arm/v6": "linux/arm/v6",
    }
    with pytest.raises(NotFound, match="linux/arm64, windows/amd64"):
        choose(entries, oci.parse_platform("linux/riscv64"), "x")
    assert host_platform("linux/arm/v7").variant == "v7"
    for bad in ("linux", "a/b/c/d", "//"):
        with pytest.raises(InvalidArgument):
            host_platform(bad)


def test_chain_ids_are_the_specifications() -> None:
    one, two = oci.sha256(b"1"), oci.sha256(b"2")
    assert oci.chain_ids(()) == ()
    assert oci.chain_ids((one, two)) == (one, oci.sha256(f"{one} {two}".encode()))


def test_configurations_take_null_for_nothing() -> None:
    document = {"config": {"Env": None, "Cmd": ["a"], "Volumes": {"/v": {}}, "Labels": None}, "rootfs": {"diff_ids": None}}
    config = oci.parse_config(json.dumps(document).encode(), "x")
    assert (config.env, config.cmd, config.volumes, config.labels, config.diff_ids) == ((), ("a",), ("/v",), (), ())
    assert oci.created_ns(config) == 0
    assert oci.created_ns(oci.parse_config(b'{"created":"1970-01-02T00:00:00.5Z"}', "x")) == 86_400_000_000_000
    with pytest.raises(FailedPrecondition):
        oci.parse_config(b'{"rootfs":{"diff_ids":["md5:1"]}}', "x")


JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(max_size=10),
    lambda inner: (
        strategies.lists(inner, max_size=3)
        | strategies.dictionaries(
            strategies.sampled_from(
                ["config", "layers", "manifests", "digest", "size", "rootfs", "diff_ids", "platform", "Env"]
            ),
            inner,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_documents_of_anybody(value: object) -> None:
    data = json.dumps(value).encode()
    for parse in (
        lambda: oci.parse_config(data, "x"),
        lambda: oci.parse_index(oci.load_object(data, "x", 10_000), "x"),
        lambda: oci.parse_manifest(data, oci.load_object(data, "x", 10_000), oci.OCI_MANIFEST, "d"),
    ):
        with contextlib.suppress(WherryError):
            parse()


def row(chain: str, parent: str) -> LayerRow:
    return LayerRow(
        chain_id=chain, parent=parent, diff_id=chain, name=chain, bytes=1, inodes=1, tar_bytes=1, root=(0o755, 0, 0), lost=""
    )


def test_unused_layers_from_the_top() -> None:
    layers = {chain: row(chain, parent) for chain, parent in (("a", ""), ("b", "a"), ("c", "b"), ("d", "a"))}
    assert [layer.chain_id for layer in unused_layers(layers, {"b"})] == ["c", "d"]
    assert [layer.chain_id for layer in unused_layers(layers, {"d"})] == ["c", "b"]
    assert [layer.chain_id for layer in unused_layers(layers, set())][-1] == "a"
    assert unused_layers(layers, {"c", "d"}) == ()


def test_trees_of_any_depth(tmp_path: Path) -> None:
    """Deeper than PATH_MAX and than the levels held open, with a link out that must survive."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("x")
    top = tmp_path / "tree"
    top.mkdir()
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(top)
        for number in range(1500):
            os.mkdir("d" * 10)
            if number % 100 == 0:
                os.mkdir("other")
                os.symlink(tmp_path / "outside", "other/link")
            os.chdir("d" * 10)
    finally:
        os.fchdir(before)
        os.close(before)
    remove_tree(str(top))
    assert os.listdir(tmp_path) == ["outside"]
    assert os.listdir(tmp_path / "outside") == ["file"]
    remove_tree(str(top))


async def test_joined_work_is_done_once_and_cancelled_by_the_last() -> None:
    joined: Joined[int] = Joined()
    count, cleaned = 0, False
    started, go = asyncio.Event(), asyncio.Event()

    async def work() -> int:
        nonlocal count, cleaned
        count += 1
        started.set()
        try:
            await go.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            cleaned = True
            raise
        return 7

    first, second = (asyncio.ensure_future(joined.run("k", work)) for _ in range(2))
    await started.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert not cleaned
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert cleaned
    go.set()
    assert await joined.run("k", work) == 7
    assert count == 2


async def test_a_caller_that_comes_while_the_last_leaves_gets_work_of_its_own() -> None:
    joined: Joined[int] = Joined()
    cleaning = asyncio.Event()
    rounds = 0

    async def work() -> int:
        nonlocal rounds
        rounds += 1
        if rounds > 1:
            return rounds
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cleaning.set()
            await asyncio.sleep(0.05)
            raise
        return 0

    leaver = asyncio.ensure_future(joined.run("k", work))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leaver.cancel()
    await cleaning.wait()
    assert await joined.run("k", work) == 2
    with pytest.raises(asyncio.CancelledError):
        await leaver


async def test_the_first_failure_stops_the_others() -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("slow")

    async def fail() -> None:
        raise NotFound("x")

    with pytest.raises(NotFound):
        await all_or_none([slow(), fail()])
    assert ended == ["slow"]
    await all_or_none([])


async def test_completed_although_cancelled() -> None:
    done = False

    async def work() -> None:
        nonlocal done
        await asyncio.sleep(0.02)
        done = True

    task = asyncio.ensure_future(complete(work()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done
