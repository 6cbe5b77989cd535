"""What CreateContainer looks at and writes, and what it must not write any more once it was given up."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from shim.container import bundle
from shim.container.cleanup import FEW, remove_container_dir
from shim.container.create import create_container
from shim.container.spec import look
from shim.errors import DeadlineExceeded, FailedPrecondition
from shim.gen.runtime.v1 import api_pb2
from shim.image.unpack import remove
from shim.pod.run import run_pod_sandbox
from tests.unit.shim.fakes import container_config, pod_config


@pytest.fixture
async def pod(world):
    node, trace = world
    pod_id = await run_pod_sandbox(node, pod_config(log_directory=f"{node.config.root}/logs"), "")
    trace.clear()
    return pod_id


@pytest.fixture
def slow_look(monkeypatch):
    """Make the look at the host wait for `gate`; give (begun, gate, ended)."""
    begun, gate, ended = threading.Event(), threading.Event(), threading.Event()
    real = bundle._build

    def build(*arguments):
        begun.set()
        gate.wait(10)
        try:
            return real(*arguments)
        finally:
            ended.set()

    monkeypatch.setattr(bundle, "_build", build)
    yield begun, gate, ended
    gate.set()


def mounting(path):
    return container_config(mounts=[api_pb2.Mount(container_path="/m", host_path=str(path))], log_path="a/0.log")


async def happened(event):
    async with asyncio.timeout(10):
        while not event.is_set():
            await asyncio.sleep(0.001)


async def test_a_cancelled_create_writes_nothing_afterwards(world, pod, slow_look, tmp_path):
    node, _ = world
    begun, gate, ended = slow_look
    call = asyncio.create_task(create_container(node, pod, mounting(tmp_path / "made")))
    await happened(begun)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.set()
    await happened(ended)
    assert not (tmp_path / "made").exists()
    assert not os.path.exists(f"{node.config.root}/logs")
    assert os.listdir(f"{node.config.root}/containers") == [] if os.path.exists(f"{node.config.root}/containers") else True


async def test_a_create_that_took_too_long_writes_nothing_afterwards(world, pod, slow_look, tmp_path, monkeypatch):
    node, _ = world
    _, gate, ended = slow_look
    monkeypatch.setattr(bundle, "HOST_PATH_SECONDS", 0.05)
    with pytest.raises(DeadlineExceeded, match="host paths of container"):
        await create_container(node, pod, mounting(tmp_path / "made"))
    gate.set()
    await happened(ended)
    assert not (tmp_path / "made").exists()
    assert not os.path.exists(f"{node.config.root}/logs")


class RealJobs:
    """Run the look where the fake jobs would do nothing."""

    def __init__(self):
        self.orders = []

    async def job(self, kind, params, *, timeout):
        del timeout
        self.orders.append((kind, params.get("action", "")))
        return {"hostpaths": look.run, "rmtree": remove.run}[kind](params, [], print)


async def test_where_a_path_may_hang_a_job_looks(world, pod, tmp_path, monkeypatch):
    node, _ = world
    table = tmp_path / "mountinfo"
    table.write_text("22 1 254:0 / / rw - ext4 /dev/vda rw\n24 22 0:9 / /srv rw - nfs4 host:/x rw\n")
    monkeypatch.setattr(look, "MOUNTINFO", str(table))
    node.jobs = RealJobs()
    container_id = await create_container(node, pod, mounting(tmp_path / "made"))
    assert node.jobs.orders == [("hostpaths", "look"), ("hostpaths", "make")]
    assert (tmp_path / "made").is_dir()
    assert str(tmp_path / "made") in Path(node.container_dir(container_id), "config.json").read_text()
    node.jobs.orders.clear()
    await create_container(node, pod, container_config("without"))
    assert node.jobs.orders == []  # nothing of the host is looked at


async def test_a_refused_host_path_is_named_and_undone(world, pod, tmp_path):
    node, _ = world
    (tmp_path / "file").touch()
    with pytest.raises(FailedPrecondition, match=r"mounts\[0\]"):
        await create_container(node, pod, mounting(tmp_path / "file" / "below"))
    assert len(node.containers) == 0


async def test_a_large_container_directory_is_removed_by_a_job(world):
    node, _ = world
    node.jobs = RealJobs()
    directory = Path(node.container_dir("c" * 64))
    for number in range(FEW + 1):
        (directory / "volumes" / "0" / str(number)).mkdir(parents=True)
    await remove_container_dir(node, "c" * 64)
    assert node.jobs.orders == [("rmtree", "")]
    assert not directory.exists()
