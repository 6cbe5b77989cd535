"""Checkpoints that fail: nothing stays frozen, whatever fails and when, and what was written is gone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import grpc
import pytest

from runtime.kernel.mount import mount, umount2
from shim.gen.runtime.v1 import api_pb2
from tests.support.criu import working_criu
from tests.support.wait import wait_for
from tests.system.test_cri_checkpoint import SCRIPT, Scene, code, criu_in_path  # noqa: F401 - the last is a fixture

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

UNSUPPORTED = "mkdir -p /root; exec 9>/root/big; dd if=/dev/zero of=/root/big bs=1M count=2 2>/dev/null; rm /root/big; "


def test_what_cannot_be_saved_leaves_all_running_and_nothing_behind(wherryd: Wherryd, pods: PodMaker, short_dir: Path) -> None:
    """A large deleted file that is still open makes the second dump fail, when the first is written already."""
    scene = Scene(wherryd, pods, "one")
    two = scene.start("two", UNSUPPORTED + SCRIPT)
    path = short_dir / "pod"
    path.mkdir()
    request = api_pb2.CheckpointPodRequest(
        pod_sandbox_id=scene.pod, output_path=str(path), container_ids=[scene.containers["one"], two]
    )
    with pytest.raises(grpc.RpcError) as caught:
        wherryd.cri.runtime.CheckpointPod(request, timeout=90)
    assert "criu" in caught.value.details()
    assert list(path.iterdir()) == []
    for container in (scene.containers["one"], two):
        scene.goes_on(container)
    location = short_dir / "c.tar"
    with pytest.raises(grpc.RpcError):
        scene.save(two, location)
    assert list(short_dir.glob("c.tar*")) == []
    scene.goes_on(two)


KILLED = """#!/bin/sh
{real} "$@" & criu=$!
while kill -0 $criu 2>/dev/null; do
    for file in {images}/*.img; do [ -e "$file" ] && kill -9 $criu 2>/dev/null && break; done
done
"""


def test_a_criu_that_is_killed_leaves_nothing_frozen(
    wherryd: Wherryd, pods: PodMaker, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first container has been saved by then, the second one is being looked into; the third one was to come.

    Code of criu's may run in a process of the second one, which a debugger's trap ends when criu does not take it back.
    """
    path = short_dir / "pod"
    path.mkdir()
    program = short_dir / "criu"
    program.write_text(KILLED.format(real=working_criu(), images=path / "two/checkpoint"))
    program.chmod(0o755)
    wherryd.stop()
    monkeypatch.setenv("PATH", f"{short_dir}:{os.environ['PATH']}")
    wherryd.start()
    scene = Scene(wherryd, pods, "one", "two", "three")
    request = api_pb2.CheckpointPodRequest(
        pod_sandbox_id=scene.pod, output_path=str(path), container_ids=scene.containers.values()
    )
    with pytest.raises(grpc.RpcError) as caught:
        wherryd.cri.runtime.CheckpointPod(request, timeout=90)
    assert "criu ended without an answer" in caught.value.details()
    assert list(path.iterdir()) == []
    for name in ("one", "three"):
        scene.goes_on(scene.containers[name])
    second = scene.containers["two"]
    before = scene.count(second)
    wait_for(lambda: scene.count(second) > before or wherryd.cri.status(second).exit_code == 133, "it to go on or to end")
    scene.save(scene.containers["one"], short_dir / "again.tar")


def test_a_full_disk_leaves_nothing_frozen(wherryd: Wherryd, pods: PodMaker, short_dir: Path) -> None:
    path = short_dir / "pod"
    path.mkdir()
    mount("tmpfs", str(path), "tmpfs", 0, "size=256k")
    try:
        scene = Scene(wherryd, pods, "one", "two")
        request = api_pb2.CheckpointPodRequest(
            pod_sandbox_id=scene.pod, output_path=str(path), container_ids=scene.containers.values()
        )
        assert code(lambda: wherryd.cri.runtime.CheckpointPod(request, timeout=90)) is not grpc.StatusCode.DEADLINE_EXCEEDED
        assert list(path.iterdir()) == []
        for container in scene.containers.values():
            scene.goes_on(container)
    finally:
        umount2(str(path))


def test_a_container_that_ends_meanwhile_leaves_nothing_frozen(wherryd: Wherryd, pods: PodMaker, short_dir: Path) -> None:
    """Whatever the checkpoint says of it, the other one runs on, and what failed is gone."""
    scene = Scene(wherryd, pods, "one", "two")
    path = short_dir / "pod"
    path.mkdir()
    request = api_pb2.CheckpointPodRequest(
        pod_sandbox_id=scene.pod, output_path=str(path), container_ids=scene.containers.values()
    )
    pid = wherryd.cri.info(scene.containers["two"])["pid"]
    call = wherryd.cri.runtime.CheckpointPod.future(request, timeout=90)
    wait_for(lambda: any(path.rglob("*.img")), "the checkpoint to begin")
    os.kill(pid, 9)
    error = call.exception()
    assert (error is None) == (path / "pod.options").exists()
    assert error is None or list(path.iterdir()) == []
    scene.goes_on(scene.containers["one"])
    assert wherryd.cri.wait_exit(scene.containers["two"]).exit_code == 137


def test_without_a_criu_that_works_the_error_names_it(
    wherryd: Wherryd, pods: PodMaker, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wherryd.stop()
    monkeypatch.setenv("PATH", str(short_dir))
    wherryd.start()
    scene = Scene(wherryd, pods)
    with pytest.raises(grpc.RpcError) as caught:
        scene.save(scene.containers["main"], short_dir / "c.tar")
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "criu is not installed" in caught.value.details()
    scene.goes_on(scene.containers["main"])
