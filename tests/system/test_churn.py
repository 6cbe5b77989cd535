"""Two hundred pods come and go, eight at a time, and the machine is as before."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support import snapshot
from tests.support.daemon import BUSYBOX
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

PODS = 200
AT_ONCE = 8
GROWING = (".db", ".db-wal", ".db-shm", ".log")
"""Files that exist once and may change."""


def _files(*folders: Path) -> frozenset[str]:
    return frozenset(
        f"{folder}/{name}"
        for top in folders
        for folder, subfolders, names in os.walk(top)
        for name in (*names, *subfolders)
        if not name.endswith(GROWING)
    )


def _state(wherryd: Wherryd) -> dict[str, frozenset[str]]:
    """Look at the machine and at the daemon; descriptors are counted by what they lead to, not by number."""
    pid = wherryd.process.pid
    counts: dict[str, int] = {}
    for entry in snapshot.descriptors(pid):
        target = entry.partition(" → ")[2]
        kind = target.partition(":")[0] if not target.startswith("/") else target
        counts[kind] = counts.get(kind, 0) + 1
    things = dict(snapshot.take().things)
    things["daemon's fd"] = frozenset(f"{kind} × {count}" for kind, count in counts.items())  # noqa: RUF001 - times
    things["daemon's file"] = _files(wherryd.root, wherryd.state, wherryd.netns)
    things["helper"] = frozenset(str(pid) for pid in wherryd.helpers())
    return things


def _live(wherryd: Wherryd, pods: PodMaker, number: int) -> None:
    config = pods.pod(f"churn-{number}", cgroup_parent=wherryd.cgroup_parent)
    pod = wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, pods.container(BUSYBOX, ["sleep", "1000"]), config)
    wherryd.cri.start(container)
    if number % 10 == 0:
        assert wherryd.cri.execute(container, "hostname").stdout.decode().strip() == config.hostname
    if number % 2:  # kubelet's way; the other half goes with its pod
        wherryd.cri.stop(container)
        wherryd.cri.remove(container)
    wherryd.cri.remove_pod(pod)


def _churn(wherryd: Wherryd, pods: PodMaker, count: int) -> None:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for result in [threads.submit(_live, wherryd, pods, number) for number in range(count)]:
            result.result()


def test_nothing_grows(wherryd: Wherryd, pods: PodMaker) -> None:
    _churn(wherryd, pods, 2 * AT_ONCE)  # bridge, tables, connections and worker threads are there from now on
    before = _state(wherryd)
    _churn(wherryd, pods, PODS)
    after: dict[str, frozenset[str]] = {}

    def settled() -> bool:
        nonlocal after
        after = _state(wherryd)
        return all(after[kind] <= before[kind] for kind in after)  # a helper kept for the next job ends by itself

    try:
        wait_for(settled, "everything to be as before", seconds=20)
    except TimeoutError:
        grown = {kind: sorted(after[kind] - before[kind])[:10] for kind in after if after[kind] - before[kind]}
        gone = {kind: sorted(before[kind] - after[kind])[:10] for kind in after if before[kind] - after[kind]}
        pytest.fail(f"new: {grown}\ngone: {gone}")
    assert not wherryd.cri.pods()
    assert not wherryd.cri.containers()
