"""kill -9 of wherryd in the middle of CreateContainer and its like, at many moments: all or nothing, and nothing is left."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.daemon import BUSYBOX
from tests.system.test_cri_volumes import IMAGE, volume_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

DELAYS = (0.0, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.010, 0.013, 0.016, 0.020, 0.030)
"""Seconds into the call; a CreateContainer takes about ten milliseconds."""


def interrupted(wherryd: Wherryd, call: Callable[[], grpc.Future], delay: float) -> None:
    """Begin a call, kill the daemon after `delay` seconds, start it again."""
    wherryd.cri.ready()
    future = call()
    time.sleep(delay)
    wherryd.process.kill()
    with suppress(grpc.RpcError):
        future.result(timeout=5)
    wherryd.disconnect()
    wherryd.start()


def traces(wherryd: Wherryd, pod: str) -> set[str]:
    """Give the ids of containers that left anything anywhere: files, runtime state, orders to the monitor, cgroups."""
    found: set[str] = set()
    for folder in (wherryd.root / "containers", wherryd.state / "oci", wherryd.state / "pods" / pod / "containers"):
        if folder.exists():
            found.update(name.removesuffix(".json") for name in os.listdir(folder))
    for base in ("/sys/fs/cgroup", *(f"/sys/fs/cgroup/{name}" for name in os.listdir("/sys/fs/cgroup"))):
        parent = f"{base}{wherryd.cgroup_parent}/{pod}"
        with suppress(OSError):
            found.update(name for name in os.listdir(parent) if os.path.isdir(f"{parent}/{name}"))
    return found


@pytest.mark.parametrize("image", [BUSYBOX, IMAGE])
def test_create(wherryd: Wherryd, pods: PodMaker, image: str) -> None:
    wherryd.load({IMAGE: volume_image()})
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    outcomes = set()
    for number, delay in enumerate(DELAYS):
        order = pods.container(image, ["sleep", "1000"], name=f"c{number}")
        request = api_pb2.CreateContainerRequest(pod_sandbox_id=pod, config=order, sandbox_config=config)
        interrupted(wherryd, lambda r=request: wherryd.cri.runtime.CreateContainer.future(r, timeout=20), delay)
        there = {one.id: one.state for one in wherryd.cri.containers()}
        assert traces(wherryd, pod) == set(there), delay
        assert set(there.values()) <= {api_pb2.CONTAINER_CREATED}
        outcomes.add(len(there))
        for container in there:
            wherryd.cri.start(container)
            assert wherryd.cri.execute(container, "true").exit_code == 0
            wherryd.cri.remove(container)
        assert traces(wherryd, pod) == set()
        repeated = wherryd.cri.create(pod, order, config)  # the name is free again
        wherryd.cri.remove(repeated)
    assert 0 in outcomes


def test_start(wherryd: Wherryd, pods: PodMaker) -> None:
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    for number, delay in enumerate(DELAYS[:8]):
        order = pods.container(BUSYBOX, ["sh", "-c", "trap 'exit 7' TERM; sleep 1000 & wait"], name=f"c{number}")
        container = wherryd.cri.create(pod, order, config)
        request = api_pb2.StartContainerRequest(container_id=container)
        interrupted(wherryd, lambda r=request: wherryd.cri.runtime.StartContainer.future(r, timeout=20), delay)
        if wherryd.cri.status(container).state == api_pb2.CONTAINER_CREATED:
            wherryd.cri.start(container)
        status = wherryd.cri.status(container)
        assert status.state == api_pb2.CONTAINER_RUNNING
        assert status.started_at > 0
        assert wherryd.cri.execute(container, "true").exit_code == 0
        wherryd.cri.stop(container, timeout=5)
        assert wherryd.cri.status(container).exit_code in {7, 143}  # before its trap was set
        wherryd.cri.remove(container)
        assert traces(wherryd, pod) == set()


def test_stop_and_remove(wherryd: Wherryd, pods: PodMaker) -> None:
    for delay in DELAYS[:8]:
        config = pods.pod()
        pod = wherryd.cri.run_pod(config)
        container = wherryd.cri.create(pod, pods.container(BUSYBOX, ["sleep", "1000"]), config)
        wherryd.cri.start(container)
        removal = api_pb2.RemoveContainerRequest(container_id=container)
        interrupted(wherryd, lambda r=removal: wherryd.cri.runtime.RemoveContainer.future(r, timeout=20), delay)
        wherryd.cri.remove(container)
        assert traces(wherryd, pod) == set()
        stop = api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod)
        interrupted(wherryd, lambda r=stop: wherryd.cri.runtime.StopPodSandbox.future(r, timeout=20), delay)
        wherryd.cri.remove_pod(pod)
        assert os.listdir(wherryd.netns) == []
        assert not (wherryd.state / "pods" / pod).exists()
