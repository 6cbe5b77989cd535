"""Pods through CRI, from an image to its removal: what a node does all day, with the real parts."""

from __future__ import annotations

import glob
import os
import signal
import socket
import threading
import time
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from shim.client import logfile
from shim.gen.runtime.v1 import api_pb2
from tests.demo.show import Show
from tests.demo.story import Story
from tests.support.daemon import BUSYBOX
from tests.support.images import DOCKER, busybox_image, files_layer
from tests.support.registry import free_port
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd
    from tests.support.registry import Registry

pytestmark = pytest.mark.system

BOTH_NETWORKS = pytest.mark.parametrize(
    "wherryd", [{}, {"standard_plugins": True}], indirect=True, ids=["bundled", "standard plugins"]
)


class Running:
    """A pod with containers, started in one line."""

    def __init__(self, wherryd: Wherryd, pods: PodMaker, **pod: Any) -> None:
        self.cri = wherryd.cri
        self._pods = pods
        self.config = pods.pod(cgroup_parent=wherryd.cgroup_parent, **pod)
        self.id = self.cri.run_pod(self.config)
        self.ip = self.cri.pod_status(self.id).network.ip

    def create(self, *command: str, **fields: Any) -> str:
        """Create a container."""
        return self.cri.create(self.id, self._pods.container(fields.pop("image", BUSYBOX), command, **fields), self.config)

    def start(self, *command: str, **fields: Any) -> str:
        """Create and start a container."""
        container = self.create(*command, **fields)
        self.cri.start(container)
        return container

    def run(self, *command: str, **fields: Any) -> tuple[api_pb2.ContainerStatus, str]:
        """Run a container to its end; give its status and what it wrote."""
        container = self.start(*command, **fields)
        status = self.cri.wait_exit(container)
        return status, "".join(line.text.decode() for line in logfile.read(status.log_path))


class TestStory:
    def test_the_demo(self, wherryd: Wherryd) -> None:
        wherryd.stop()
        Story(endpoint=wherryd, show=Show(), crash=wherryd.kill).tell()


class TestNetwork:
    @BOTH_NETWORKS
    def test_pods_reach_each_other_and_the_host_reaches_them(self, wherryd: Wherryd, pods: PodMaker) -> None:
        one, two = (Running(wherryd, pods) for _ in range(2))
        assert one.ip != two.ip
        one.start("sh", "-c", "mkdir /www && echo one > /www/index.html && exec httpd -f -p 80 -h /www", name="web")
        _reachable(one.ip, 80)
        with urllib.request.urlopen(f"http://{one.ip}/", timeout=5) as response:
            assert response.read() == b"one\n"
        status, output = two.run("wget", "-q", "-O", "-", f"http://{one.ip}/")
        assert (status.exit_code, output) == (0, "one\n")

    @BOTH_NETWORKS
    def test_host_port(self, wherryd: Wherryd, pods: PodMaker) -> None:
        port = free_port()
        mapping = api_pb2.PortMapping(container_port=80, host_port=port, protocol=api_pb2.TCP)
        pod = Running(wherryd, pods, port_mappings=[mapping])
        pod.start("sh", "-c", "mkdir /www && echo mapped > /www/index.html && exec httpd -f -p 80 -h /www")
        _reachable(pod.ip, 80)
        address = _own_address()
        with urllib.request.urlopen(f"http://{address}:{port}/", timeout=5) as response:
            assert response.read() == b"mapped\n"
        wherryd.cri.remove_pod(pod.id)
        with pytest.raises(OSError, match=r"refused|timed out"):
            socket.create_connection((address, port), timeout=2).close()

    def test_host_network(self, wherryd: Wherryd, pods: PodMaker) -> None:
        pod = Running(wherryd, pods, host_network=True)
        modes = api_pb2.NamespaceOption(network=api_pb2.NODE, pid=api_pb2.CONTAINER, ipc=api_pb2.POD)
        security = api_pb2.LinuxContainerSecurityContext(namespace_options=modes)
        linux = api_pb2.LinuxContainerConfig(security_context=security)
        _, output = pod.run("ls", "/sys/class/net", linux=linux)
        assert wherryd.bridge in output.split() or "lo" in output.split()
        assert pod.ip == ""


class TestImages:
    @pytest.mark.parametrize("media", ["oci", "docker"])
    def test_pull_and_run(self, wherryd: Wherryd, pods: PodMaker, shared_registry: Registry, media: str) -> None:
        layer = files_layer({"etc/marker": media}, compression="zstd" if media == "oci" else "gzip")
        options = {"media": DOCKER} if media == "docker" else {}
        image = busybox_image(extra=(layer,), config={"Cmd": ["cat", "/etc/marker"]}, **options)
        name = shared_registry.push(f"e2e/{media}", "1", image)
        assert wherryd.cri.pull(name) == image.id
        status, output = Running(wherryd, pods).run(image=name)
        assert (status.exit_code, output) == (0, media)
        assert status.image_id == image.id


class TestContainers:
    def test_what_the_process_gets(self, wherryd: Wherryd, pods: PodMaker, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("from the host\n")
        pod = Running(wherryd, pods, hostname="box")
        script = 'echo "$A"; pwd; hostname; cat /data/file; touch /data/x 2>/dev/null || echo read-only'
        _, output = pod.run(
            "sh",
            "-c",
            script,
            envs=[api_pb2.KeyValue(key="A", value=b"a b\xc3\xa9")],
            working_dir="/tmp",
            mounts=[api_pb2.Mount(container_path="/data", host_path=str(tmp_path), readonly=True)],
        )
        lines = output.splitlines()
        assert lines[:4] == ["a bé", "/tmp", "box", "from the host"]
        assert lines[-1] == "read-only"

    @pytest.mark.parametrize(("command", "code", "reason"), [("exit 0", 0, "Completed"), ("exit 3", 3, "Error")])
    def test_exit_codes(self, wherryd: Wherryd, pods: PodMaker, command: str, code: int, reason: str) -> None:
        status, _ = Running(wherryd, pods).run("sh", "-c", command)
        assert (status.exit_code, status.reason) == (code, reason)
        assert 0 < status.created_at <= status.started_at <= status.finished_at

    def test_stop_kills_what_ignores_the_signal(self, wherryd: Wherryd, pods: PodMaker) -> None:
        container = Running(wherryd, pods).start("sh", "-c", "trap '' TERM; while :; do usleep 9999; done")
        started = time.monotonic()
        wherryd.cri.stop(container, timeout=1)
        assert 0.9 < time.monotonic() - started < 10
        status = wherryd.cri.status(container)
        assert (status.state, status.exit_code, status.reason) == (api_pb2.CONTAINER_EXITED, 137, "Error")

    def test_stop_is_gentle_first(self, wherryd: Wherryd, pods: PodMaker) -> None:
        container = Running(wherryd, pods).start("sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do usleep 9999; done")
        path = wherryd.cri.status(container).log_path
        wait_for(lambda: list(logfile.read(path)), "the trap to be set")
        wherryd.cri.stop(container, timeout=20)
        assert wherryd.cri.status(container).exit_code == 5

    def test_out_of_memory(self, wherryd: Wherryd, pods: PodMaker) -> None:
        pod = Running(wherryd, pods)
        linux = api_pb2.LinuxContainerConfig(
            resources=api_pb2.LinuxContainerResources(memory_limit_in_bytes=16 << 20, memory_swap_limit_in_bytes=16 << 20)
        )
        status, _ = pod.run("sh", "-c", "x=0123456789abcdef; while :; do x=$x$x; done", linux=linux)
        assert (status.exit_code, status.reason) == (137, "OOMKilled")

    def test_a_command_that_is_not_there(self, wherryd: Wherryd, pods: PodMaker) -> None:
        pod = Running(wherryd, pods)
        container = pod.create("/no/such/program")
        with pytest.raises(grpc.RpcError) as caught:
            wherryd.cri.start(container)
        assert "/no/such/program" in str(caught.value)
        status = wherryd.cri.status(container)
        assert status.state == api_pb2.CONTAINER_EXITED
        assert status.exit_code in {127, 128}

    def test_logs_are_whole_across_a_rotation(self, wherryd: Wherryd, pods: PodMaker) -> None:
        pod = Running(wherryd, pods)
        container = pod.start("sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")
        path = wherryd.cri.status(container).log_path
        parts = [path]
        while wherryd.cri.status(container).state == api_pb2.CONTAINER_RUNNING and len(parts) < 6:
            rotated = f"{path}.{len(parts)}"
            wait_for(lambda: _size(path) or _exited(wherryd, container), "something in the log")
            if not _size(path):
                break
            os.rename(path, rotated)
            request = api_pb2.ReopenContainerLogRequest(container_id=container)
            try:
                wherryd.cri.runtime.ReopenContainerLog(request, timeout=10)
            except grpc.RpcError:
                break  # it has ended meanwhile
            parts.insert(-1, rotated)
        wherryd.cri.wait_exit(container)
        found = [line.text for part in _rotations(path) for line in logfile.read(part)]
        assert found == [f"line {number}\n".encode() for number in range(20000)]

    def test_many_execs_at_once(self, wherryd: Wherryd, pods: PodMaker) -> None:
        pod = Running(wherryd, pods)
        container = pod.start("sleep", "1000")
        answers: list[bytes] = []

        def ask(number: int) -> None:
            answers.append(wherryd.cri.execute(container, "sh", "-c", f"echo {number}; exit 0").stdout)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == sorted(f"{number}\n".encode() for number in range(16))

    def test_exec_timeout_ends_the_tree(self, wherryd: Wherryd, pods: PodMaker) -> None:
        pod = Running(wherryd, pods)
        container = pod.start("sleep", "1000")
        started = time.monotonic()
        request = api_pb2.ExecSyncRequest(container_id=container, cmd=["sh", "-c", "sleep 333 & sleep 334"], timeout=1)
        with pytest.raises(grpc.RpcError) as caught:
            wherryd.cri.runtime.ExecSync(request, timeout=20)
        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - started < 10
        wait_for(lambda: b"33" not in wherryd.cri.execute(container, "ps").stdout, "the exec's processes to be gone")


class TestRestart:
    def test_graceful_restart_keeps_pods(self, wherryd: Wherryd, pods: PodMaker) -> None:
        pod = Running(wherryd, pods)
        container = pod.start("sleep", "1000")
        pid = wherryd.cri.info(container)["pid"]
        wherryd.disconnect()
        assert wherryd.process.stop() == 0
        wherryd.start()
        assert wherryd.cri.info(container)["pid"] == pid
        assert wherryd.cri.execute(container, "true").exit_code == 0

    def test_a_pod_stopped_meanwhile_can_be_removed(self, wherryd: Wherryd, pods: PodMaker) -> None:
        """The monitor dies with the daemon, as in a reboot of half the machine: what cannot be recovered is cleaned."""
        pod = Running(wherryd, pods)
        container = pod.start("sleep", "1000")
        helpers = wherryd.helpers()
        wherryd.kill()
        _kill_all(helpers)
        wherryd.start()
        assert wherryd.cri.pod_status(pod.id).state == api_pb2.SANDBOX_NOTREADY
        assert wherryd.cri.status(container).state == api_pb2.CONTAINER_EXITED


def _kill_all(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _exited(wherryd: Wherryd, container: str) -> bool:
    return wherryd.cri.status(container).state == api_pb2.CONTAINER_EXITED


def _rotations(path: str) -> list[str]:
    """Give the rotated logs, the oldest first, and the present one."""
    return [*sorted(glob.glob(f"{path}.*")), path]


def _reachable(address: str, port: int) -> None:
    def connects() -> bool:
        try:
            socket.create_connection((address, port), timeout=1).close()
        except OSError:
            return False
        return True

    wait_for(connects, f"{address}:{port} to accept connections")


def _own_address() -> str:
    """Give an address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
