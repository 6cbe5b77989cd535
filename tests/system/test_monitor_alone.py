"""A container made by one fork, and one made by a creator and its init: the same container and faults, nothing left."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runtime.apply.cgroup import for_container
from shim.errors import FailedPrecondition, WherryError
from shim.monitor.protocol import ExecRequest, StartFailed
from tests.support.monitors import PodHarness, gone, running_pod
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from shim.monitor.protocol import ContainerCreate

pytestmark = pytest.mark.system


@pytest.fixture
async def pod(short_dir: Path) -> AsyncIterator[PodHarness]:
    async with running_pod(short_dir, hostname="the-pod") as harness:
        yield harness


def cgroups_of(request: ContainerCreate) -> list[str]:
    """Give those directories of the container's cgroup that are there."""
    group = for_container(f"/wherry-test-{request.container_id}", request.container_id)
    return [directory for _, directory in group.paths if os.path.isdir(directory)]


def state_of(pod: PodHarness, request: ContainerCreate) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((pod.folder / "oci" / request.container_id / "state.json").read_text())
    return state


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def creators(pid: int) -> list[int]:
    """Give those below a process, however deep, that make a container."""
    found = [pid] if Path(f"/proc/{pid}/comm").read_text() == "wherry-creator\n" else []
    return [*found, *(one for child in children(pid) for one in creators(child))]


def limited(config: dict[str, Any]) -> None:
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}]
    config["process"]["oomScoreAdj"] = 321
    config["linux"]["resources"] = {"pids": {"limit": 33}, "devices": [{"allow": False, "access": "rwm"}]}
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71}],
    }


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "creator"])
async def test_the_same_container(pod: PodHarness, alone: bool) -> None:
    request = pod.request("sleep", "100", change=limited, **({} if alone else {"alone": ""}))
    assert bool(request.alone) == alone
    pid = await pod.monitor.create(request)
    state = state_of(pod, request)
    assert (state["pid"], state["pid"] == state["creator_pid"]) == (pid, alone)
    assert state["cgroup"] == dict(for_container(f"/wherry-test-{request.container_id}", "").paths)
    wait_for(lambda: children(pod.pid) == [pid], "the creator to be reaped")
    await pod.monitor.start(request.container_id)
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    assert next(line.split()[3:5] for line in limits if line.startswith("Max open files")) == ["77", "99"]
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "321"
    assert len(set(Path(f"/proc/{pid}/cgroup").read_text().split())) >= len(cgroups_of(request))
    assert all(str(pid) in Path(f"{folder}/cgroup.procs").read_text().split() for folder in cgroups_of(request))
    devices = [folder for folder in cgroups_of(request) if folder.startswith("/sys/fs/cgroup/devices/")]
    assert all("a *:* rwm" not in Path(f"{folder}/devices.list").read_text() for folder in devices)
    (limit,) = [file.read_text() for folder in cgroups_of(request) if (file := Path(folder) / "pids.max").exists()]
    assert limit == "33\n"
    order = ExecRequest(container_id=request.container_id, process={"args": ["sh", "-c", "mkdir /tmp/x; ps"]}, timeout_s=10)
    ran = await pod.monitor.exec_sync(order)
    assert b"sleep 100" in ran.stdout
    assert b"1 0 " in ran.stdout or b"    1 " in ran.stdout
    assert not (pod.rootfs / "tmp" / "x").exists()
    await pod.monitor.delete(request.container_id)
    assert gone(pid)
    assert cgroups_of(request) == []


def missing_source(config: dict[str, Any]) -> None:
    config["mounts"].append({"destination": "/data", "type": "bind", "source": "/no/such/thing", "options": ["bind"]})


def unknown_field(config: dict[str, Any]) -> None:
    config["process"]["cwd"] = "relative"


def refused_limit(config: dict[str, Any]) -> None:
    config["linux"]["resources"] = {"cpu": {"cpus": "4000"}}


def no_program(config: dict[str, Any]) -> None:
    config["process"]["args"] = ["nothing-of-that-name"]


def bad_sysctl(config: dict[str, Any]) -> None:
    config["linux"]["sysctl"] = {"kernel.msgmax": "nonsense"}


@pytest.mark.parametrize("change", [missing_source, unknown_field, refused_limit, no_program, bad_sysctl])
async def test_the_same_faults_and_nothing_left(pod: PodHarness, change: Callable[[dict[str, Any]], None]) -> None:
    said = []
    for settings in ({}, {"alone": ""}):
        request = pod.request("sleep", "100", change=change, **settings)
        with pytest.raises(WherryError) as failure:
            await pod.monitor.create(request)
        said.append((type(failure.value), str(failure.value).replace(request.container_id, "ID")))
        assert cgroups_of(request) == []
        assert not (pod.folder / "oci" / request.container_id).exists()
        wait_for(lambda: not children(pod.pid), "the monitor to have no children")
    assert said[0] == said[1]


async def test_a_cgroup_that_is_there_takes_a_creator(pod: PodHarness) -> None:
    request = pod.request("sleep", "100")
    os.mkdir(request.alone)
    pid = await pod.monitor.create(request)
    state = state_of(pod, request)
    assert state["pid"] == pid != state["creator_pid"]
    await pod.monitor.delete(request.container_id)
    assert cgroups_of(request) == []


async def test_a_taken_id_stays_with_its_owner(pod: PodHarness) -> None:
    request = pod.request("sleep", "100")
    folder = pod.folder / "oci" / request.container_id
    folder.mkdir(parents=True)
    (folder / "something").touch()
    with pytest.raises(WherryError, match="already exists"):
        await pod.monitor.create(request)
    assert (folder / "something").exists()
    assert cgroups_of(request) == []


async def test_one_that_is_held_up_and_killed_leaves_nothing(pod: PodHarness) -> None:
    """A path that does not answer holds up nobody but the process that reads it."""
    request = pod.request("sleep", "100")
    config = Path(request.bundle) / "config.json"
    config.unlink()
    os.mkfifo(config)
    creating = asyncio.ensure_future(pod.monitor.create(request))
    while not creators(pod.pid):
        assert await asyncio.wait_for(pod.monitor.containers(), 5)  # the monitor answers meanwhile
    (pid,) = creators(pod.pid)
    assert stat.S_ISFIFO(config.stat().st_mode)
    assert not creating.done()
    os.kill(pid, 9)
    with pytest.raises(WherryError, match="ended"):
        await creating
    assert gone(pid)
    assert cgroups_of(request) == []
    assert not (pod.folder / "oci" / request.container_id).exists()
    assert await pod.monitor.containers() == []


async def test_a_command_that_is_run_again_is_decided_once_and_judged_each_time(pod: PodHarness) -> None:
    request = await pod.run("sleep", "100")

    async def say(value: str) -> bytes:
        process = {"args": ["sh", "-c", "echo $VALUE $PPID"], "env": [f"VALUE={value}"]}
        order = ExecRequest(container_id=request.container_id, process=process, timeout_s=10)
        return (await pod.monitor.exec_sync(order)).stdout

    assert [await say(value) for value in "aab"] == [b"a 0\n", b"a 0\n", b"b 0\n"]
    missing = ExecRequest(container_id=request.container_id, process={"args": ["nothing-of-that-name"]}, timeout_s=10)
    said = []
    for _ in range(2):
        with pytest.raises(StartFailed) as failure:
            await pod.monitor.exec_sync(missing)
        said.append(str(failure.value))
    assert said[0] == said[1]
    group = for_container(f"/wherry-test-{request.container_id}", request.container_id)
    assert await say("a") == await say("a")
    group.freeze()
    with pytest.raises(FailedPrecondition, match="paused"):
        await say("a")
    group.thaw()
    assert await say("a") == b"a 0\n"
    assert not any(name.startswith("exec-") for folder in cgroups_of(request) for name in os.listdir(folder))
