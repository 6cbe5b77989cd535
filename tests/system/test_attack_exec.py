"""Attacks on a CRI server by what is executed, mounted and annotated. Numbers are those of the advisories."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.daemon import BUSYBOX
from tests.support.streaming import command, exec_url, run_container, status_of
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system


def family(wherryd: Wherryd) -> list[int]:
    return [wherryd.process.pid, *wherryd.helpers()]


def held(wherryd: Wherryd) -> int:
    """Give the descriptors and threads that the daemon and what it has forked hold."""
    total = 0
    for pid in family(wherryd):
        for kind in ("fd", "task"):
            try:
                total += len(os.listdir(f"/proc/{pid}/{kind}"))
            except OSError:  # it has just ended
                continue
    return total


async def _fail(wherryd: Wherryd, container: str, times: int) -> None:
    for number in range(times):
        url = exec_url(wherryd, container, "no-such-program", stdin=True, tty=True)
        async with command(url, "stdin", "stdout", tty=True) as opened:
            await opened["resize"].write(b'{"Width":%d,"Height":20}' % (50 + number))
            assert (await status_of(opened))["status"] == "Failure"


def test_terminals_of_commands_that_cannot_run(wherryd: Wherryd, pods: PodMaker) -> None:
    """CVE-2022-23471: who waits for new sizes of a terminal does not wait on after its command has failed to start."""
    _pod, container = run_container(wherryd, pods)
    asyncio.run(_fail(wherryd, container, 3))
    before = held(wherryd)
    asyncio.run(_fail(wherryd, container, 30))
    wait_for(lambda: held(wherryd) <= before + 3, "descriptors and threads of the failed commands to be gone")
    assert wherryd.cri.execute(container, "ls", "/dev/pts").stdout.split() == [b"ptmx"]


def _states(wherryd: Wherryd) -> Iterator[tuple[int, str, int]]:
    """Give pid, state and parent of all processes that the daemon is an ancestor of, as far as they still are there."""
    ours = set(family(wherryd))
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(words[1]) in ours:
                yield int(name), words[0], int(words[1])


def test_no_zombie_after_a_timeout(wherryd: Wherryd, pods: PodMaker) -> None:
    """GHSA-7jxh-36q5-gcqv and kin: a probe that hangs with its children, again and again, leaves no process in any state."""
    _pod, container = run_container(wherryd, pods, "sh", "-c", "while :; do sleep 0.2; done")  # a shell reaps
    script = "setsid sleep 4321 & (sleep 4321 & sleep 4321) & sh -c 'trap : TERM INT; sleep 4321; sleep 4321'"
    for _ in range(4):
        with pytest.raises(grpc.RpcError) as caught:
            wherryd.cri.execute(container, "sh", "-c", script, timeout=1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    def clean() -> bool:
        listed = wherryd.cri.execute(container, "sh", "-c", "cat /proc/[0-9]*/stat; cat /proc/[0-9]*/cmdline").stdout
        return b"4321" not in listed and b") Z " not in listed and not [one for one in _states(wherryd) if one[1] == "Z"]

    wait_for(clean, "the commands and their zombies to be gone")


ORDERS = {
    "org.systemd.property.ExecStartPost": "'/bin/sh -c id'",
    "org.systemd.property.CollectMode": "'inactive-or-failed'",
    "org.criu.config": "/tmp/evil.conf",
    "run.oci.hooks.stderr": "/tmp/evil",
    "run.oci.keep_original_groups": "1",
    "io.kubernetes.cri.sandbox-id": "f" * 64,
    "io.wherry.log-path": "/etc/passwd",
}


def test_annotations_give_no_orders(wherryd: Wherryd, pods: PodMaker) -> None:
    """CVE-2024-3154: an OCI runtime, systemd behind it included, takes no orders from whoever may write a pod's annotations."""
    config = pods.pod(annotations=ORDERS)
    pod = wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, pods.container(BUSYBOX, ["sleep", "100"], annotations=ORDERS), config)
    wherryd.cri.start(container)
    assert dict(wherryd.cri.status(container).annotations) == ORDERS  # kubelet has its own back
    handed = wherryd.cri.info(container)["runtimeSpec"]["annotations"]
    assert {name: value for name, value in handed.items() if ORDERS.get(name) == value} == {}
    assert not [name for name in handed if name.startswith(("org.systemd.", "org.criu.", "run.oci."))]


@pytest.mark.parametrize("place", ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"])
def test_a_host_s_file_in_the_place_of_a_pod_s(wherryd: Wherryd, pods: PodMaker, place: str) -> None:
    """CVE-2021-43816: it stays as it is, label, mode, owner and words, and read-only where that was asked for."""
    file = wherryd.folder / "host-file"
    file.write_text("the host's\n")
    file.chmod(0o600)
    os.chown(file, 65533, 65532)
    os.setxattr(file, "trusted.note", b"as it was")
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    script = f"cat {place}; echo changed > {place} || echo refused"
    order = pods.container(BUSYBOX, ["sh", "-c", script])
    order.mounts.append(api_pb2.Mount(container_path=place, host_path=str(file), readonly=True))
    container = wherryd.cri.create(pod, order, config)
    wherryd.cri.start(container)
    log = Path(wherryd.cri.wait_exit(container).log_path).read_text()
    assert "the host's" in log
    assert "refused" in log
    found = file.stat()
    assert (file.read_text(), found.st_mode & 0o7777, found.st_uid, found.st_gid) == ("the host's\n", 0o600, 65533, 65532)
    assert os.getxattr(file, "trusted.note") == b"as it was"
    assert "security.selinux" not in os.listxattr(file)
