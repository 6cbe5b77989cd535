"""kill -9 of wherryd with containers running: the same processes, every exit code, every log line."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import suppress
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


def start(wherryd: Wherryd, pods: PodMaker, *command: str) -> tuple[str, str]:
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, pods.container(BUSYBOX, command), config)
    wherryd.cri.start(container)
    return pod, container


def lines_of(path: str) -> list[str]:
    with open(path, encoding="utf-8") as file:
        return [line.split(" ", 3)[3] for line in file.read().splitlines()]


def leases(wherryd: Wherryd) -> list[str]:
    """Give the addresses that are reserved."""
    names = [name for _folder, _folders, names in os.walk(wherryd.root / "cni" / "networks") for name in names]
    return [name for name in names if name[0].isdigit() or name.startswith("fd")]


def test_nothing_is_lost(wherryd: Wherryd, pods: PodMaker) -> None:
    counter = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.01; done; sleep 1000"
    pod, runner = start(wherryd, pods, "/bin/sh", "-c", counter)
    _, ender = start(wherryd, pods, "/bin/sh", "-c", "sleep 0.7; exit 42")
    _, sleeper = start(wherryd, pods, "/bin/sleep", "1000")
    before = {container: wherryd.cri.info(container)["pid"] for container in (runner, sleeper)}
    statuses = {container: wherryd.cri.status(container) for container in (runner, sleeper)}
    pod_before = wherryd.cri.pod_status(pod)
    ender_pid = wherryd.cri.info(ender)["pid"]

    wherryd.kill()
    wait_for(lambda: not os.path.exists(f"/proc/{ender_pid}"), "the short container to end meanwhile")
    wherryd.start()

    assert wherryd.cri.pod_status(pod) == pod_before
    for container, pid in before.items():
        assert wherryd.cri.info(container)["pid"] == pid
        assert wherryd.cri.status(container) == statuses[container]
        os.kill(pid, 0)
    ended = wherryd.cri.status(ender)
    assert (ended.state, ended.exit_code, ended.reason) == (api_pb2.CONTAINER_EXITED, 42, "Error")
    assert ended.finished_at > ended.started_at
    assert wherryd.cri.execute(sleeper, "/bin/echo", "here").stdout == b"here\n"
    log = statuses[runner].log_path
    wait_for(lambda: len(lines_of(log)) == 300, "all lines")
    assert lines_of(log) == [f"line {number}" for number in range(300)]
    wherryd.cri.stop(sleeper)
    assert wherryd.cri.status(sleeper).exit_code == 137


def test_a_killed_monitor_ends_its_pod(wherryd: Wherryd, pods: PodMaker) -> None:
    pod, container = start(wherryd, pods, "/bin/sleep", "1000")
    with open(wherryd.state / "pods" / pod / "monitor.json", "rb") as file:
        monitor = int(file.read().split(b'"pid":')[1].split(b",")[0])
    pid = wherryd.cri.info(container)["pid"]
    os.kill(monitor, signal.SIGKILL)
    status = wherryd.cri.wait_exit(container)
    assert status.reason in {"Error", "Unknown"}
    assert wherryd.cri.pod_status(pod).state == api_pb2.SANDBOX_NOTREADY
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "its process to be killed")


def test_a_monitor_killed_while_the_daemon_was_away(wherryd: Wherryd, pods: PodMaker) -> None:
    pod, container = start(wherryd, pods, "/bin/sleep", "1000")
    with open(wherryd.state / "pods" / pod / "monitor.json", "rb") as file:
        monitor = int(file.read().split(b'"pid":')[1].split(b",")[0])
    pid = wherryd.cri.info(container)["pid"]
    wherryd.kill()
    os.kill(monitor, signal.SIGKILL)
    wherryd.start()
    assert wherryd.cri.pod_status(pod).state == api_pb2.SANDBOX_NOTREADY
    wherryd.cri.wait_exit(container)
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "its process to be killed")


def test_after_a_reboot_pods_are_not_ready_and_their_addresses_free(wherryd: Wherryd, pods: PodMaker) -> None:
    """A reboot is played: processes and runtime state vanish, the database remembers another boot."""

    pod, container = start(wherryd, pods, "/bin/sleep", "1000")
    ip = wherryd.cri.pod_status(pod).network.ip
    pid = wherryd.cri.info(container)["pid"]
    wherryd.kill()
    with open(wherryd.state / "pods" / pod / "monitor.json", "rb") as file:
        monitor = int(file.read().split(b'"pid":')[1].split(b",")[0])
    os.kill(monitor, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        points = [line.split()[4] for line in table if str(wherryd.folder) in line]
    for point in points:
        subprocess.run(["umount", "-l", point], check=True)
    for name in os.listdir(wherryd.netns):
        os.unlink(wherryd.netns / name)
    shutil.rmtree(wherryd.state)
    database = sqlite3.connect(wherryd.root / "wherry.db")
    database.execute("UPDATE pod SET status = json_set(status, '$.boot_id', 'an-earlier-boot')")
    database.commit()
    database.close()
    wherryd.start()
    assert wherryd.cri.pod_status(pod).state == api_pb2.SANDBOX_NOTREADY
    status = wherryd.cri.status(container)
    assert (status.state, status.exit_code) == (api_pb2.CONTAINER_EXITED, 255)
    with open(status.log_path, "rb"):
        pass
    assert ip not in leases(wherryd)
    wherryd.cri.remove_pod(pod)
    assert wherryd.cri.pods() == []


def test_addresses_that_no_pod_has_are_freed_at_boot(wherryd: Wherryd, pods: PodMaker) -> None:
    """What a node lost the row of, or what a plugin kept by mistake, would be taken for ever."""
    pod, container = start(wherryd, pods, "/bin/sleep", "1000")
    ips = set(wherryd.cri.pod_status(pod).network.ip.split()) | set(leases(wherryd))
    wherryd.kill()
    cni = wherryd.root / "cni"
    stale = "e" * 64
    (network,) = [path for path in (cni / "networks").iterdir() if path.is_dir()]
    (network / "10.189.77.7").write_text(f"{stale}\r\neth0")
    (network / "10.189.77.8").write_text(f"{'d' * 64}\r\neth0")
    (result,) = (cni / "results").iterdir()
    (cni / "results" / result.name.replace(pod, stale)).write_text(result.read_text().replace(pod, stale))
    wherryd.start()
    assert set(leases(wherryd)) == ips
    assert [path.name for path in (cni / "results").iterdir()] == [result.name]
    assert wherryd.cri.execute(container, "ip", "-o", "addr", "show", "eth0").stdout.count(b"inet") >= 2


def test_an_interrupted_run_is_undone(wherryd: Wherryd, pods: PodMaker) -> None:
    """Kill the daemon at many moments of RunPodSandbox and CreateContainer; the leak check and the lists tell."""
    for delay in (0.0, 0.004, 0.01, 0.02, 0.03, 0.05):
        config = pods.pod()
        future = wherryd.cri.runtime.RunPodSandbox.future(api_pb2.RunPodSandboxRequest(config=config))
        with suppress(grpc.FutureTimeoutError):
            future.result(timeout=delay)
        wherryd.kill()
        wherryd.start()
        for pod in wherryd.cri.pods():
            assert pod.state == api_pb2.SANDBOX_READY
            wherryd.cri.remove_pod(pod.id)
        assert os.listdir(wherryd.netns) == []
        assert [name for _folder, folders, _names in os.walk(wherryd.state) for name in folders if len(name) == 64] == []
        assert leases(wherryd) == []


def test_a_second_daemon_on_the_same_root_is_refused(wherryd: Wherryd) -> None:

    command = [os.path.dirname(sys.executable) + "/wherryd", "--config", str(wherryd.config), "--log-format", "json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 1
    assert "another wherryd uses" in result.stderr
    assert wherryd.cri.ready()


def test_sigterm_ends_the_daemon_and_nothing_else(wherryd: Wherryd, pods: PodMaker) -> None:
    _, container = start(wherryd, pods, "/bin/sleep", "1000")
    pid = wherryd.cri.info(container)["pid"]
    wherryd.disconnect()
    wherryd.process.stop()
    os.kill(pid, 0)
    wherryd.start()
    assert wherryd.cri.status(container).state == api_pb2.CONTAINER_RUNNING
