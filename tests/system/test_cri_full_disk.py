"""A disk that is really full: clear errors, nothing left, and everything that frees space works."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import pytest

from runtime.kernel.mount import umount2
from shim.gen.runtime.v1 import api_pb2
from shim.gen.wherry.v1 import wherry_pb2
from tests.support import images
from tests.support.cri import PodMaker
from tests.support.daemon import BUSYBOX, Wherryd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.registry import Registry

pytestmark = pytest.mark.system

MEGABYTES = 40
FULL = grpc.StatusCode.RESOURCE_EXHAUSTED


class SmallDisk:
    """A wherryd whose root is a small ext4 file system of its own."""

    def __init__(self, daemon: Wherryd) -> None:
        self.daemon = daemon
        self._filler = daemon.root / "filler"

    def fill(self, *, leave: int = 0) -> None:
        """Take all space but `leave` kilobytes."""
        with self._filler.open("ab", buffering=0) as file:
            size = 1 << 20
            while size >= 1024:
                try:
                    file.write(bytes(size))
                except OSError:
                    size //= 4
            if leave:
                file.truncate(max(file.tell() - leave * 1024, 0))
                os.fsync(file.fileno())

    def free(self) -> None:
        """Give it back."""
        self._filler.unlink(missing_ok=True)

    def left(self) -> list[str]:
        """Give what containers and unfinished pulls leave."""
        root = self.daemon.root
        folders = (
            root / "containers",
            root / "pods",
            self.daemon.state / "pods",
            self.daemon.state / "oci",
            root / "content" / "partial",
        )
        found = [f"{folder.name}/{name}" for folder in folders if folder.exists() for name in os.listdir(folder)]
        return (
            found + [name for name in os.listdir(root / "layers") if name.startswith("partial")] + os.listdir(self.daemon.netns)
        )


@contextmanager
def ext4(image: Path, point: Path) -> Iterator[None]:
    """Make and mount a small file system."""
    with image.open("wb") as file:
        file.truncate(MEGABYTES << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(image)], check=True, capture_output=True)
    point.mkdir()
    done = subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no loop devices here: {done.stderr}")
    try:
        yield
    finally:
        umount2(str(point), 0)


@pytest.fixture
def disk(request: pytest.FixtureRequest, short_dir: Path) -> Iterator[SmallDisk]:
    daemon = Wherryd(extra="[image]\nretries = 1\n")
    try:
        with ext4(short_dir / "disk", daemon.root):
            daemon.start()
            daemon.load({BUSYBOX: images.busybox_image()})
            disk = SmallDisk(daemon)
            yield disk
            disk.free()
            daemon.stop()
    finally:
        log = daemon.process.log_tail(100)
        left = daemon.scrub()
        request.node.add_report_section("teardown", "log of wherryd", log)
    assert left == []


@pytest.fixture
def pods(disk: SmallDisk) -> PodMaker:
    return PodMaker(logs=str(disk.daemon.logs))


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() is FULL, caught.value.details()
    return str(caught.value.details())


def unless_full(call: Callable[[], str]) -> str:
    """Give what a call gives, "" when it was refused for want of space, which must be what it says."""
    try:
        return call()
    except grpc.RpcError as error:
        if "space" not in error.details():
            raise
        return ""


def test_pull(disk: SmallDisk, registry: Registry) -> None:
    cri = disk.daemon.cri
    big = images.TestImage(layers=(images.random_layer(24, seed="a"), images.random_layer(24, seed="b")))
    small = images.TestImage(layers=(images.files_layer({"f": "x"}),))
    registry.push("big", "1", big)
    registry.push("small", "1", small)
    used = os.statvfs(disk.daemon.root).f_bfree
    assert "layer" in refused(lambda: cri.pull(f"{registry.host}/big:1"))
    assert disk.left() == []
    assert os.statvfs(disk.daemon.root).f_bfree > used - 64
    disk.fill()
    assert "No space left" in refused(lambda: cri.pull(f"{registry.host}/small:1"))
    assert disk.left() == []
    assert len(cri.images.ListImages(api_pb2.ListImagesRequest()).images) == 1
    disk.free()
    assert cri.pull(f"{registry.host}/small:1") == small.id


def test_load(disk: SmallDisk) -> None:
    big = images.TestImage(layers=(images.random_layer(60, compression=""),))
    archive = disk.daemon.folder / "big.tar"
    archive.write_bytes(images.docker_archive({"localhost/big:1": big}))
    refused(lambda: disk.daemon.cri.wherry.Load(iter([wherry_pb2.LoadRequest(path=str(archive))]), timeout=60))
    assert disk.left() == []
    data = archive.read_bytes()
    chunks = (wherry_pb2.LoadRequest(data=data[at : at + (1 << 20)]) for at in range(0, len(data), 1 << 20))
    refused(lambda: disk.daemon.cri.wherry.Load(chunks, timeout=60))
    assert [name for name in os.listdir(disk.daemon.root) if name.startswith("load-")] == []


def test_create(disk: SmallDisk, pods: PodMaker) -> None:
    cri = disk.daemon.cri
    config = pods.pod()
    pod = cri.run_pod(config)
    before = disk.left()
    for leave in (0, 4, 8, 12, 16, 20):
        disk.fill(leave=leave)
        order = pods.container(BUSYBOX, ["sleep", "1000"])
        container = unless_full(lambda o=order: cri.create(pod, o, config))
        assert [one.id for one in cri.containers()] == ([container] if container else [])
        if container:
            cri.start(container)
            cri.remove(container)
        assert disk.left() == before
        disk.free()
        container = cri.create(pod, order, config)  # the name is free
        cri.remove(container)


def test_run_pod(disk: SmallDisk, pods: PodMaker) -> None:
    cri = disk.daemon.cri
    for leave in (0, 4, 8, 16):
        disk.fill(leave=leave)
        config = pods.pod()
        pod = unless_full(lambda c=config: cri.run_pod(c))
        assert [one.id for one in cri.pods()] == ([pod] if pod else [])
        cri.remove_all()
        assert disk.left() == []
        disk.free()
        cri.remove_pod(cri.run_pod(config))


def test_what_runs_goes_on_and_can_be_removed(disk: SmallDisk, pods: PodMaker) -> None:
    cri = disk.daemon.cri
    config = pods.pod()
    pod = cri.run_pod(config)
    writer = cri.create(pod, pods.container(BUSYBOX, ["sleep", "1000"], name="writer"), config)
    late = cri.create(pod, pods.container(BUSYBOX, ["sleep", "1000"], name="late"), config)
    ender = cri.create(pod, pods.container(BUSYBOX, ["sh", "-c", "sleep 1; exit 5"], name="ender"), config)
    cri.start(writer)
    cri.start(ender)
    done = cri.execute(writer, "dd", "if=/dev/zero", "of=/big", "bs=64k")
    assert done.exit_code == 1
    assert b"No space left" in done.stderr
    disk.fill()
    assert cri.execute(writer, "echo", "alive").stdout == b"alive\n"
    cri.start(late)
    assert cri.status(late).state == api_pb2.CONTAINER_RUNNING
    assert cri.wait_exit(ender).exit_code == 5
    cri.stop(late)
    assert cri.status(late).exit_code == 137
    for container in (late, ender, writer):
        cri.remove(container)
    cri.remove_pod(pod)
    assert disk.left() == []
    cri.remove_image(BUSYBOX)
    assert len(cri.images.ListImages(api_pb2.ListImagesRequest()).images) == 0


def test_restart_on_a_full_disk(disk: SmallDisk, pods: PodMaker) -> None:
    cri = disk.daemon.cri
    config = pods.pod()
    pod = cri.run_pod(config)
    container = cri.create(pod, pods.container(BUSYBOX, ["sleep", "1000"]), config)
    cri.start(container)
    disk.fill()
    disk.daemon.kill()
    disk.daemon.start()
    cri = disk.daemon.cri
    assert cri.execute(container, "echo", "alive").stdout == b"alive\n"
    cri.remove_pod(pod)
    assert disk.left() == []
