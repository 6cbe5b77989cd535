"""What survives what: garbage, dead daemons, dead spawners, dead monitors; and namespaces, made and removed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shim import wire
from shim.errors import AlreadyExists, InvalidArgument, Unavailable
from shim.monitor.client import MonitorClient
from shim.monitor.protocol import ExecRequest, IdMap, NamespaceRequest
from tests.support.monitors import PodHarness, SpawnerProcess, gone, open_fds, spawner
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shim.spawner.client import SpawnerClient

pytestmark = pytest.mark.system


@pytest.fixture
async def running() -> AsyncIterator[tuple[SpawnerClient, SpawnerProcess]]:
    async with spawner() as pair:
        yield pair


@pytest.fixture
async def pod(running: tuple[SpawnerClient, SpawnerProcess], short_dir: Path) -> AsyncIterator[PodHarness]:
    harness = PodHarness(running[0], short_dir, "")
    await harness.start()
    yield harness
    await harness.stop()


def text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def refused_to_others(path: str) -> bool:
    """Say whether a connect by nobody fails on the socket's own mode: the directories are got past by a descriptor."""
    with wire._reachable(path) as short:
        pid = os.fork()
        if pid == 0:
            os.setgid(65534)
            os.setuid(65534)
            try:
                socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(short)
            except PermissionError:
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitpid(pid, 0)[1] == 0


async def works(pod: PodHarness) -> bool:
    request = await pod.run("true")
    event = await asyncio.wait_for(pod.exited(request.container_id), 10)
    await pod.monitor.delete(request.container_id)
    return event.exit_code == 0


async def test_garbage_on_the_socket_ends_only_its_own_link(pod: PodHarness) -> None:
    fds = len(pod.open_fds())
    for data in (
        b"x",
        b"J",
        b"J[",
        b"Jnull",
        b'J{"seq":"a"}',
        b"M5",
        b"J" + b"[" * 60000,
        b'J{"seq":1,"op":"list"}',
        os.urandom(4096),
    ):
        with wire.connect(pod.socket) as sock:
            sock.settimeout(5)
            sock.send(data)
            while answer := sock.recv(65536):
                assert b"error" in answer
    with wire.connect(pod.socket) as sock:  # descriptors nobody asked for
        reader, writer = os.pipe()
        wire.send(sock, {"seq": 1, "op": "hello", "versions": [1]}, [reader, writer])
        os.close(reader)
        os.close(writer)
        assert wire.recv(sock)[0]["ok"]["version"] == 1
    assert await works(pod)
    await asyncio.to_thread(wait_for, lambda: len(pod.open_fds()) == fds, "the descriptors to be closed")


async def test_an_unknown_version_is_refused(pod: PodHarness) -> None:
    with wire.connect(pod.socket) as sock:
        wire.send(sock, {"seq": 1, "op": "hello", "versions": [99]})
        reply, _fds = wire.recv(sock)
        assert "versions [1]" in reply["error"]["message"]
        with pytest.raises(wire.PeerClosed):
            wire.recv(sock)


async def test_only_the_owner_may_connect(pod: PodHarness) -> None:
    assert stat.S_IMODE(os.stat(pod.socket).st_mode) == 0o600
    assert refused_to_others(pod.socket)


async def test_one_monitor_a_pod(pod: PodHarness) -> None:
    with pytest.raises(AlreadyExists):
        await pod.spawner.start_monitor(pod.pod_id, str(pod.state_dir))


async def test_monitors_outlive_wherryd_and_the_spawner(pod: PodHarness, running: tuple[SpawnerClient, SpawnerProcess]) -> None:
    _client, process = running
    request = await pod.run("sh", "-c", "sleep 1000")
    process.kill()
    assert (await pod.monitor.containers())[0].status == "running"
    assert await works(pod)
    async with spawner() as (fresh, _process):  # the restarted wherryd has another one
        with pytest.raises(AlreadyExists):
            await fresh.start_monitor(pod.pod_id, str(pod.state_dir))
    again = await MonitorClient.connect(pod.socket)
    result = await again.exec_sync(ExecRequest(container_id=request.container_id, process={"args": ["echo", "here"]}))
    assert result.stdout == b"here\n"
    await again.close()


async def test_a_dead_monitor_is_replaced_by_one_that_cleans_up(pod: PodHarness) -> None:
    """Somebody killed it: its successor knows the containers from disk, sees their end, and removes everything."""
    await pod.setup(pid=True)
    first = await pod.run("sleep", "1000")
    second = await pod.run("sleep", "1000")
    (pid_of_first,) = [listed.pid for listed in await pod.monitor.containers() if listed.id == first.container_id]
    os.kill(pod.pid, signal.SIGKILL)
    await asyncio.wait_for(asyncio.shield(pod.monitor.closed), 5)
    with pytest.raises(Unavailable):
        await pod.monitor.containers()
    with pytest.raises(Unavailable):
        await MonitorClient.connect(pod.socket)
    await pod.start()
    assert {listed.id: listed.status for listed in await pod.monitor.containers()} == {
        first.container_id: "running",
        second.container_id: "running",
    }
    os.kill(pid_of_first, signal.SIGKILL)
    event = await asyncio.wait_for(pod.exited(first.container_id), 10)
    assert event.exit_code == 255  # whoever is no parent cannot know better


async def test_what_a_dead_monitor_had_frozen_runs_on(pod: PodHarness) -> None:
    """A monitor that dies while it saves containers leaves them frozen; nobody else would let them run."""
    await pod.setup()
    request = await pod.run("sleep", "1000")
    words = [str(Path(sys.executable).parent / "wherry-oci"), "--root", request.state_root]

    def status() -> str:
        done = subprocess.run([*words, "state", request.container_id], capture_output=True, check=True)
        return str(json.loads(done.stdout)["status"])

    subprocess.run([*words, "pause", request.container_id], check=True)
    assert status() == "paused"
    try:
        os.kill(pod.pid, signal.SIGKILL)
        await asyncio.wait_for(asyncio.shield(pod.monitor.closed), 5)
        await pod.start()
        wait_for(lambda: status() == "running", "the container to run on")
    finally:  # what is frozen does not even die
        subprocess.run([*words, "resume", request.container_id], check=False, capture_output=True)


async def test_namespaces_sysctls_and_shm(pod: PodHarness) -> None:
    made = await pod.setup(
        hostname="a-pod", sysctls={"net.ipv4.ip_unprivileged_port_start": "99", "kernel.shmmax": "12345678"}, shm_size=1 << 20
    )
    assert sorted(made.paths) == ["ipc", "network", "uts"]
    usage = os.statvfs(made.shm)
    assert usage.f_blocks * usage.f_frsize == 1 << 20
    request = await pod.run("sh", "-c", "hostname; cat /proc/sys/kernel/shmmax /proc/sys/net/ipv4/ip_unprivileged_port_start")
    assert (await asyncio.wait_for(pod.exited(request.container_id), 10)).exit_code == 0
    lines = text(request.log_path).splitlines()
    assert [line.split()[-1] for line in lines] == ["a-pod", "12345678", "99"]
    assert text("/proc/sys/kernel/shmmax").strip() != "12345678"


async def test_a_setup_that_fails_leaves_nothing(pod: PodHarness) -> None:
    with pytest.raises(InvalidArgument, match="ip_forward"):
        await pod.setup(pid=True, sysctls={"net.ipv4.ip_forward": "nonsense"})
    assert await pod.monitor.namespaces() is None
    assert not (pod.state_dir / "ns").exists()
    assert not (pod.state_dir / "netns").exists()
    assert (await pod.setup(pid=True)).reaper_pid


async def test_a_user_namespace(pod: PodHarness) -> None:
    maps = (IdMap(container_id=0, host_id=100000, size=65536),)
    made = await pod.monitor.setup_pod(
        NamespaceRequest(
            net_pin=str(pod.state_dir / "netns"), ipc=True, uts=True, pid=True, uid_maps=maps, gid_maps=maps,
            hostname="mapped", sysctls={"net.ipv4.ip_unprivileged_port_start": "7"},
        )
    )  # fmt: skip
    assert sorted(made.paths) == ["ipc", "network", "pid", "user", "uts"]
    assert text(f"/proc/{made.reaper_pid}/uid_map").split() == ["0", "100000", "65536"]
    for kind, name in (("user", "user"), ("ipc", "ipc"), ("network", "net")):
        assert os.stat(made.paths[kind]).st_ino == os.stat(f"/proc/{made.reaper_pid}/ns/{name}").st_ino
    await pod.monitor.teardown_pod()
    await asyncio.to_thread(wait_for, lambda: gone(made.reaper_pid), "the reaper's end")


async def test_footprint(running: tuple[SpawnerClient, SpawnerProcess], short_dir: Path) -> None:
    """Private memory of a monitor with one container, among its peers (the spawner's pages are shared by all)."""
    pods = [PodHarness(running[0], short_dir, "") for _ in range(4)]
    try:
        for one in pods:
            await one.start()
            await one.setup()
            await one.run("sleep", "1000")
        rollup = text(f"/proc/{pods[1].pid}/smaps_rollup").splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in rollup if line.endswith("kB")}
        assert sizes["Private_Dirty"] < 5000
        assert len(open_fds(pods[1].pid)) < 24
    finally:
        for one in pods:
            await one.stop()
