"""Checkpoints: one of a pod at a time, and what criu is told when a container comes from one."""

from __future__ import annotations

import asyncio
import os

import pytest

from shim.container import checkpoint
from shim.container.bundle import create_request
from shim.container.create import create_container
from shim.container.restore import CheckpointSource, place_checkpoint, restore_options
from shim.monitor.checkpoint import DEFAULTS
from shim.pod.run import run_pod_sandbox
from tests.unit.shim.fakes import IMAGE_ID, container_config, pod_config


@pytest.fixture
async def pod(world):
    node, _ = world
    return await run_pod_sandbox(node, pod_config(), "")


async def test_one_checkpoint_of_a_pod_at_a_time(world, pod, monkeypatch, tmp_path):
    """The end of one would let run on what the other holds still."""
    node, _ = world
    members = [node.containers.get(await create_container(node, pod, container_config(name))) for name in ("a", "b")]
    monkeypatch.setattr(checkpoint, "_documents", lambda *_: {})
    begun, gate, seen = asyncio.Event(), asyncio.Event(), []

    async def save(request):
        seen.append(request.containers)
        begun.set()
        await gate.wait()

    node.monitors.get(pod).checkpoint = save
    folders = [tmp_path / name for name in ("one", "two")]
    first = asyncio.create_task(checkpoint.save_containers(node, {str(folders[0]): members[0]}, {}, 5))
    await begun.wait()
    second = asyncio.create_task(checkpoint.save_containers(node, {str(folders[1]): members[1]}, {}, 5))
    async with asyncio.timeout(10):
        while not folders[1].exists():
            await asyncio.sleep(0.001)
    for _ in range(20):
        await asyncio.sleep(0)
    assert seen == [(members[0].id,)]
    gate.set()
    await asyncio.gather(first, second)
    assert seen == [(members[0].id,), (members[1].id,)]


async def test_a_restore_is_told_what_was_asked_for(world, pod, monkeypatch):
    node, _ = world
    container = node.containers.get(await create_container(node, pod, container_config("a")))
    directory = node.container_dir(container.id)
    rootfs = await node.images.prepare_rootfs(container.id, IMAGE_ID, directory)
    assert create_request(node, container, rootfs).options == {}

    async def job(_kind, params, *, timeout):
        assert timeout
        os.makedirs(params["folder"])
        return {"diff": False}

    monkeypatch.setattr(node.jobs, "job", job)
    asked = {"tcp_close": False, "tcp_established": True}
    source = CheckpointSource(path="/c", image=node.images.resolve("busybox"), options=asked)
    await place_checkpoint(node, container.id, None, source)
    request = create_request(node, container, rootfs)
    assert (request.options, request.checkpoint) == (asked, f"{directory}/restore")
    os.unlink(f"{directory}/restore/options.json")
    assert restore_options(request.checkpoint) == DEFAULTS
