"""A pod's life through the real daemon: what kubelet does, and what it sees."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.daemon import BUSYBOX
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system


def code_of(caught: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    return caught.value.code()


def run(wherryd: Wherryd, pods: PodMaker, *command: str, **fields) -> tuple[str, str]:
    """Run a pod with one started container."""
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, pods.container(BUSYBOX, command, **fields), config)
    wherryd.cri.start(container)
    return pod, container


def test_a_life(wherryd: Wherryd, pods: PodMaker) -> None:
    cri = wherryd.cri
    config = pods.pod("life", labels={"app": "web"}, annotations={"note": "x"})
    before = time.time_ns()
    pod = cri.run_pod(config)
    status = cri.pod_status(pod)
    assert status.state == api_pb2.SANDBOX_READY
    assert status.metadata == config.metadata
    assert (dict(status.labels), dict(status.annotations)) == ({"app": "web"}, {"note": "x"})
    assert before < status.created_at < time.time_ns()
    assert status.network.ip.startswith("10.189.")
    assert status.network.additional_ips[0].ip.startswith("fd00:bd:")

    order = pods.container(BUSYBOX, ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], labels={"a": "b"})
    container = cri.create(pod, order, config)
    created = cri.status(container)
    assert created.state == api_pb2.CONTAINER_CREATED
    assert created.started_at == created.finished_at == 0
    cri.start(container)
    ended = cri.wait_exit(container)
    assert (ended.exit_code, ended.reason) == (3, "Error")
    assert before < ended.created_at < ended.started_at <= ended.finished_at < time.time_ns()
    assert dict(ended.labels) == {"a": "b"}
    assert ended.log_path == f"{pods.logs}/life/main_0.log"
    with open(ended.log_path, encoding="utf-8") as file:
        lines = sorted(line.split(" ", 1)[1] for line in file.read().splitlines())
    assert lines == ["stderr F err", "stdout F out"]
    (image,) = cri.images.ListImages(api_pb2.ListImagesRequest()).images
    assert created.image_id == image.id == cri.containers()[0].image_id

    cri.remove(container)
    assert cri.containers() == []
    assert os.path.exists(ended.log_path)
    cri.remove_pod(pod)
    assert cri.pods() == []


def test_exec_sync(wherryd: Wherryd, pods: PodMaker) -> None:
    _, container = run(wherryd, pods, "/bin/sleep", "100")
    answer = wherryd.cri.execute(container, "/bin/sh", "-c", "echo out; echo err >&2; exit 7")
    assert (answer.stdout, answer.stderr, answer.exit_code) == (b"out\n", b"err\n", 7)
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        wherryd.cri.execute(container, "/bin/sh", "-c", "sleep 1000 & sleep 1000", timeout=1)
    assert code_of(caught) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < 5
    processes = wherryd.cri.execute(container, "/bin/ps").stdout.decode()
    assert "sleep 1000" not in processes


def test_stop_gives_time_then_kills(wherryd: Wherryd, pods: PodMaker) -> None:
    script = "trap 'echo stopped; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    _, obedient = run(wherryd, pods, "/bin/sh", "-c", script)
    log = wherryd.cri.status(obedient).log_path
    wait_for(lambda: os.path.getsize(log) > 0, "the trap to be set")
    wherryd.cri.stop(obedient, 20)
    status = wherryd.cri.status(obedient)
    assert (status.state, status.exit_code, status.reason) == (api_pb2.CONTAINER_EXITED, 5, "Error")

    _, stubborn = run(wherryd, pods, "/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    log = wherryd.cri.status(stubborn).log_path
    wait_for(lambda: os.path.getsize(log) > 0, "the trap to be set")
    started = time.monotonic()
    wherryd.cri.stop(stubborn, 1)
    assert 0.9 < time.monotonic() - started < 5
    assert wherryd.cri.status(stubborn).exit_code == 137
    wherryd.cri.stop(stubborn, 1)


def test_a_command_that_does_not_exist(wherryd: Wherryd, pods: PodMaker) -> None:
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, pods.container(BUSYBOX, ["/no/such/program"]), config)
    with pytest.raises(grpc.RpcError, match=r"no such file|not found") as caught:
        wherryd.cri.start(container)
    assert code_of(caught) is grpc.StatusCode.UNKNOWN
    status = wherryd.cri.status(container)
    assert (status.state, status.exit_code) == (api_pb2.CONTAINER_EXITED, 127)
    assert status.reason in {"StartError", "ContainerCannotRun"}


def test_removing_a_pod_takes_everything_along(wherryd: Wherryd, pods: PodMaker) -> None:
    pod, container = run(wherryd, pods, "/bin/sleep", "100")
    wherryd.cri.runtime.RemovePodSandbox(api_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod), timeout=30)
    assert wherryd.cri.pods() == []
    with pytest.raises(grpc.RpcError) as caught:
        wherryd.cri.status(container)
    assert code_of(caught) is grpc.StatusCode.NOT_FOUND


def test_a_stopped_pod_shows_what_happened(wherryd: Wherryd, pods: PodMaker) -> None:
    pod, container = run(wherryd, pods, "/bin/sleep", "100")
    for _ in range(2):
        wherryd.cri.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod), timeout=30)
    assert wherryd.cri.pod_status(pod).state == api_pb2.SANDBOX_NOTREADY
    status = wherryd.cri.status(container)
    assert (status.state, status.exit_code) == (api_pb2.CONTAINER_EXITED, 137)


def test_a_host_network_pod(wherryd: Wherryd, pods: PodMaker) -> None:
    config = pods.pod(host_network=True)
    pod = wherryd.cri.run_pod(config)
    assert wherryd.cri.pod_status(pod).network.ip == ""
    order = pods.container(BUSYBOX, ["/bin/sleep", "100"])
    order.linux.security_context.namespace_options.network = api_pb2.NODE
    container = wherryd.cri.create(pod, order, config)
    wherryd.cri.start(container)
    assert (
        wherryd.cri.execute(container, "/bin/readlink", "/proc/self/ns/net").stdout.strip()
        == os.readlink("/proc/self/ns/net").encode()
    )


def test_reopen_log(wherryd: Wherryd, pods: PodMaker) -> None:
    _, container = run(wherryd, pods, "/bin/sh", "-c", "echo one; while [ ! -e /go ]; do sleep 0.05; done; echo two; sleep 100")
    log = wherryd.cri.status(container).log_path
    wait_for(lambda: os.path.getsize(log) > 0, "the first line")
    os.rename(log, log + ".1")
    wherryd.cri.runtime.ReopenContainerLog(api_pb2.ReopenContainerLogRequest(container_id=container))
    wherryd.cri.execute(container, "/bin/touch", "/go")
    wait_for(lambda: os.path.getsize(log) > 0, "the second line")
    with open(log + ".1", encoding="utf-8") as old, open(log, encoding="utf-8") as new:
        assert old.read().endswith("stdout F one\n")
        assert new.read().endswith("stdout F two\n")


def test_filters_and_prefixes(wherryd: Wherryd, pods: PodMaker) -> None:
    cri = wherryd.cri
    first, second = pods.pod(labels={"n": "1"}), pods.pod(labels={"n": "2"})
    one, two = cri.run_pod(first), cri.run_pod(second)
    containers = {
        pod: cri.create(pod, pods.container(BUSYBOX, ["/bin/sleep", "9"]), c) for pod, c in ((one, first), (two, second))
    }
    cri.start(containers[two])

    def listed(**fields) -> list[str]:
        wanted = api_pb2.PodSandboxFilter(**fields)
        return [pod.id for pod in cri.runtime.ListPodSandbox(api_pb2.ListPodSandboxRequest(filter=wanted)).items]

    assert listed(id=one[:13]) == [one]
    assert listed(label_selector={"n": "2"}) == [two]
    assert listed(label_selector={"n": "3"}) == []
    assert sorted(listed(state=api_pb2.PodSandboxStateValue(state=api_pb2.SANDBOX_READY))) == sorted([one, two])
    assert cri.pod_status(two[:13]).id == two
    running = api_pb2.ContainerFilter(state=api_pb2.ContainerStateValue(state=api_pb2.CONTAINER_RUNNING))
    found = cri.runtime.ListContainers(api_pb2.ListContainersRequest(filter=running)).containers
    assert [one.id for one in found] == [containers[two]]
    of_pod = api_pb2.ContainerFilter(pod_sandbox_id=one[:13])
    found = cri.runtime.ListContainers(api_pb2.ListContainersRequest(filter=of_pod)).containers
    assert [one.id for one in found] == [containers[one]]
