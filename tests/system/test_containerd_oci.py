"""containerd with `wherry-oci` as its runtime: through CRI, as a handler's BinaryName, and through `ctr --runc-binary`."""

from __future__ import annotations

import re
import secrets
import subprocess
from typing import TYPE_CHECKING

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.cri import PodMaker
from tests.support.wait import wait_for
from tests.system.oci_node import OURS, program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.daemon import Containerd

pytestmark = pytest.mark.system
OF_OURS = {"runtime": program(OURS)}
BOTH = pytest.mark.parametrize("containerd", [OF_OURS, {"runtime": "runc"}], indirect=True, ids=[OURS, "runc"])
LOOP = "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done"


def _log(containerd: Containerd, pod: str) -> str:
    path: Path = containerd.logs / pod / "main_0.log"
    return path.read_text() if path.exists() else ""


@BOTH
def test_the_life_of_a_pod(containerd: Containerd) -> None:
    pods = PodMaker(logs=str(containerd.logs))
    cri = containerd.cri
    config = pods.pod(cgroup_parent=containerd.cgroup_parent)
    pod = cri.run_pod(config)
    wanted = pods.container("busybox", ["sh", "-c", LOOP])
    wanted.linux.resources.memory_limit_in_bytes = 64 << 20
    container = cri.create(pod, wanted, config)
    cri.start(container)
    wait_for(lambda: "stdout F up" in _log(containerd, config.metadata.name), "the first line of the log")
    answer = cri.execute(container, "sh", "-c", "echo out; echo err >&2; exit 4")
    assert (answer.stdout, answer.stderr, answer.exit_code) == (b"out\n", b"err\n", 4)
    with pytest.raises(grpc.RpcError) as raised:
        cri.execute(container, "absent")
    assert 'exec: "absent": executable file not found in $PATH' in (raised.value.details() or "")
    with pytest.raises(grpc.RpcError) as late:
        cri.execute(container, "sleep", "60", timeout=1)
    assert late.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN)
    stats = cri.runtime.ContainerStats(api_pb2.ContainerStatsRequest(container_id=container), timeout=10).stats
    assert stats.memory.working_set_bytes.value > 0
    limits = api_pb2.LinuxContainerResources(memory_limit_in_bytes=80 << 20, cpu_shares=300)
    cri.runtime.UpdateContainerResources(
        api_pb2.UpdateContainerResourcesRequest(container_id=container, linux=limits), timeout=10
    )
    assert "80.0M" in cri.execute(container, "sh", "-c", _SHOW_LIMIT).stdout.decode()
    cri.stop(container, timeout=10)
    assert cri.wait_exit(container).exit_code == 9
    cri.remove_pod(pod)


_SHOW_LIMIT = (
    "for f in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; do"
    " [ -e $f ] && echo $(($(cat $f) / 1048576)).0M; done"
)


@pytest.mark.parametrize("containerd", [OF_OURS], indirect=True)
def test_what_cannot_be_started_says_why(containerd: Containerd) -> None:
    pods = PodMaker(logs=str(containerd.logs))
    config = pods.pod(cgroup_parent=containerd.cgroup_parent)
    pod = containerd.cri.run_pod(config)
    container = containerd.cri.create(pod, pods.container("busybox", ["/absent"]), config)
    with pytest.raises(grpc.RpcError) as raised:
        containerd.cri.start(container)
    assert "no such file or directory" in (raised.value.details() or "")
    status = containerd.cri.status(container)
    assert (status.reason, status.exit_code) == ("StartError", 128)
    containerd.cri.remove_pod(pod)


@pytest.mark.parametrize("containerd", [OF_OURS], indirect=True)
def test_a_container_killed_for_its_memory(containerd: Containerd) -> None:
    pods = PodMaker(logs=str(containerd.logs))
    config = pods.pod(cgroup_parent=containerd.cgroup_parent)
    pod = containerd.cri.run_pod(config)
    wanted = pods.container("busybox", ["sh", "-c", "sleep 0.3; exec tail /dev/zero"])
    wanted.linux.resources.memory_limit_in_bytes = 12 << 20
    wanted.linux.resources.memory_swap_limit_in_bytes = 12 << 20
    container = containerd.cri.create(pod, wanted, config)
    containerd.cri.start(container)
    status = containerd.cri.wait_exit(container)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")
    containerd.cri.remove_pod(pod)


class Ctr:
    """`ctr` with the runtime of its containerd."""

    def __init__(self, containerd: Containerd) -> None:
        self.start = [containerd.ctr, "--address", containerd.address, "--namespace", "k8s.io"]
        runtime = containerd.runtime if "/" in containerd.runtime else program(containerd.runtime)
        self.run = ["run", "--runc-binary", runtime, "--cgroup", f"{containerd.cgroup_parent}/ctr-{secrets.token_hex(4)}"]

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.start, *words], capture_output=True, text=True, timeout=60, check=False)

    def ok(self, *words: str) -> str:
        done = self.call(*words)
        assert done.returncode == 0, f"ctr {' '.join(words)}: {done.stderr}"
        return done.stdout


@BOTH
def test_ctr(containerd: Containerd) -> None:
    ctr = Ctr(containerd)
    image = "docker.io/library/busybox:latest"
    assert ctr.ok(*ctr.run, "--rm", image, "once", "echo", "ahoy") == "ahoy\n"
    assert ctr.call(*ctr.run, "--rm", image, "once", "sh", "-c", "exit 7").returncode == 7
    refused = ctr.call(*ctr.run, "--rm", image, "once", "absent")
    assert refused.returncode != 0
    assert 'exec: "absent": executable file not found in $PATH' in refused.stderr
    ctr.ok(*ctr.run, "--detach", "--memory-limit", str(64 << 20), image, "life", "sh", "-c", LOOP)
    assert ctr.ok("tasks", "exec", "--exec-id", "one", "life", "id", "-u") == "0\n"
    assert ctr.call("tasks", "exec", "--exec-id", "two", "life", "sh", "-c", "exit 3").returncode == 3
    assert re.search(r"life +\d+ +RUNNING", ctr.ok("tasks", "list"))
    ctr.ok("tasks", "pause", "life")
    assert "PAUSED" in ctr.ok("tasks", "list")
    ctr.ok("tasks", "resume", "life")
    assert "memory" in ctr.ok("tasks", "metrics", "life")
    assert len(ctr.ok("tasks", "ps", "life").splitlines()) >= 2
    ctr.ok("tasks", "kill", "--signal", "TERM", "life")
    wait_for(lambda: "STOPPED" in ctr.ok("tasks", "list"), "the task to end")
    ctr.ok("tasks", "rm", "life")
    ctr.ok("containers", "rm", "life")
