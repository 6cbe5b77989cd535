"""After the crash of the machine: lost pods are told as lost, images are whole or not there, half-done work is gone."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.cri import PodMaker
from tests.vm.crash.daemon import EARLY, FACTS, FINISHED, name_of, sums

if TYPE_CHECKING:
    from tests.vm.crash.daemon import Lasting

pytestmark = pytest.mark.vm


def images(daemon: Lasting) -> set[str]:
    listed = daemon.cri.images.ListImages(api_pb2.ListImagesRequest(), timeout=30).images
    return {tag for image in listed for tag in image.repo_tags}


def below(path: Path) -> set[str]:
    return set(os.listdir(path)) if path.exists() else set()


def test_lost_pods_are_told_as_lost(survivor: Lasting) -> None:
    cri = survivor.cri
    facts = json.loads(FACTS.read_text())
    assert {pod.state for pod in cri.pods()} == {api_pb2.SANDBOX_NOTREADY}
    states = {one.id: one.state for one in cri.containers()}
    assert api_pb2.CONTAINER_RUNNING not in states.values()
    for one in facts["running"]:
        assert cri.pod_status(one["pod"]).state == api_pb2.SANDBOX_NOTREADY
        status = cri.status(one["container"])
        assert (status.state, status.exit_code) == (api_pb2.CONTAINER_EXITED, 255)
        assert one["said"] in Path(status.log_path).read_text()
    assert cri.status(facts["ended"]).exit_code == 7


def test_nothing_half_done_is_left(survivor: Lasting) -> None:
    """What was made when the power failed is either told or gone: containers, layers, addresses."""
    pods, containers = {pod.id for pod in survivor.cri.pods()}, {one.id for one in survivor.cri.containers()}
    assert below(survivor.root / "pods") <= pods
    assert below(survivor.root / "containers") <= containers
    assert not [name for name in below(survivor.root / "layers") if name.startswith("partial-")]
    assert below(survivor.netns) == set()
    assert not [tag for tag in images(survivor) if "endless" in tag]


def test_every_image_is_whole(survivor: Lasting) -> None:
    """Those that were safely on the disk are all there; of the newest some may be gone, but none is damaged."""
    pods = PodMaker(logs=str(survivor.logs))
    finished = [int(line) for line in FINISHED.read_text().splitlines()] if FINISHED.exists() else []
    there = images(survivor)
    assert {name_of(number) for number in range(EARLY)} <= there
    config = pods.pod(name="judge")
    pod = survivor.cri.run_pod(config)
    for number in [*range(EARLY), *finished, EARLY + len(finished)]:
        if name_of(number) not in there:
            continue
        order = pods.container(name_of(number), ["sleep", "1000"], name=f"judge{number}")
        container = survivor.cri.create(pod, order, config)
        survivor.cri.start(container)
        assert survivor.cri.execute(container, "sha256sum", "/cargo/0", "/cargo/1").stdout.decode() == sums(number)
        survivor.cri.remove(container)
    survivor.cri.remove_pod(pod)


def test_what_is_left_can_be_removed(survivor: Lasting) -> None:
    survivor.cri.remove_all()
    assert (survivor.cri.pods(), survivor.cri.containers()) == ([], [])
    assert below(survivor.root / "pods") | below(survivor.root / "containers") == set()
    for tag in images(survivor):
        survivor.cri.remove_image(tag)
    survivor.stop()
    with sqlite3.connect(survivor.root / "wherry.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
