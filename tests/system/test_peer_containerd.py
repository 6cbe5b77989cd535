"""The tests' own peer works: what is asked of Wherry through CRI is what containerd does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.cri import PodMaker

if TYPE_CHECKING:
    from tests.support.daemon import Containerd

pytestmark = pytest.mark.system


@pytest.mark.parametrize("containerd", [{"runtime": "runc"}, {"runtime": "crun"}], indirect=True)
def test_pod_runs_on_the_peer(containerd: Containerd) -> None:
    pods = PodMaker(logs=str(containerd.logs))
    config = pods.pod(cgroup_parent=containerd.cgroup_parent)
    pod = containerd.cri.run_pod(config)
    container = containerd.cri.create(pod, pods.container("busybox", ["sleep", "60"]), config)
    containerd.cri.start(container)
    assert containerd.cri.execute(container, "echo", "hello").stdout == b"hello\n"
