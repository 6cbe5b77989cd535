"""NRI with plugins that hang or die wherever they are asked, and with a daemon that was killed."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.daemon import BUSYBOX
from tests.support.nri import NriPlugin

if TYPE_CHECKING:
    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

TIMEOUT = 0.5
METHODS = ("RunPodSandbox", "PostCreateContainer", "StartContainer", "UpdateContainer", "StopContainer", "RemovePodSandbox")


def impatient(wherryd: Wherryd) -> None:
    """Let the daemon wait for plugins as long as a test likes to."""
    wherryd.config.write_text(wherryd.config.read_text().replace("[nri]\n", f"[nri]\nrequest_timeout = {TIMEOUT}\n"))
    wherryd.disconnect()
    wherryd.process.stop()
    wherryd.start()


def live(wherryd: Wherryd, pods: PodMaker) -> None:
    """Lead a pod and a container through all that plugins are asked about."""
    cri, config = wherryd.cri, pods.pod()
    pod = cri.run_pod(config)
    container = cri.create(pod, pods.container(BUSYBOX, ["sleep", "100"]), config)
    cri.start(container)
    limits = api_pb2.LinuxContainerResources(cpu_shares=300)
    cri.runtime.UpdateContainerResources(
        api_pb2.UpdateContainerResourcesRequest(container_id=container, linux=limits), timeout=10
    )
    cri.stop(container)
    cri.remove(container)
    cri.remove_pod(pod)


def test_wherever_plugins_hang_or_die_a_pod_lives_and_ends(wherryd: Wherryd, pods: PodMaker) -> None:
    """Each is dropped after its one timeout; who answers hears all of both lives, in order."""
    impatient(wherryd)
    with ExitStack() as stack:
        bad = {}
        for number, method in enumerate(METHODS):
            one = NriPlugin(wherryd, f"{10 + number}", "bad", **{"die" if number % 2 else "hang": [method]})
            stack.callback(one.process.kill)
            bad[method] = one.start()
        good = NriPlugin(wherryd, "90", "good")
        stack.callback(good.process.kill)
        good.start()
        started = time.monotonic()
        live(wherryd, pods)
        first = time.monotonic() - started
        started = time.monotonic()
        live(wherryd, pods)
        second = time.monotonic() - started
        heard = good.heard()[2:]
        assert heard[: len(heard) // 2] == heard[len(heard) // 2 :]
        assert set(METHODS) <= set(heard)
        for method, one in bad.items():
            assert one.heard().count(method) == 1
    hanging = (len(METHODS) + 1) // 2 * TIMEOUT
    assert hanging <= first < hanging + 8
    assert second < first
    assert wherryd.cri.pods() == []


def test_after_a_crash_of_the_daemon_a_plugin_is_told_of_what_runs(wherryd: Wherryd, pods: PodMaker) -> None:
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    running, created = (wherryd.cri.create(pod, pods.container(BUSYBOX, ["sleep", "100"], name=name), config) for name in "ab")
    wherryd.cri.start(running)
    wherryd.kill()
    wherryd.start()
    plugin = NriPlugin(wherryd, "10", "late")
    try:
        told = plugin.start().last("Synchronize")
        assert [one["id"] for one in told["pods"]] == [pod]
        states = {one["id"]: one["state"] for one in told["containers"]}
        assert states == {running: "CONTAINER_RUNNING", created: "CONTAINER_CREATED"}
        wherryd.cri.stop(running)
        assert plugin.last("StopContainer")["container"]["id"] == running
    finally:
        plugin.process.kill()
