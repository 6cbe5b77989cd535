"""Checkpoints: what is asked for happens whole, or is refused and changes nothing; a node need not have what they take."""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from conformance.cri.subject import REFUSALS, Code, refused
from shim.gen.runtime.v1 import api_pb2
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conformance.cri.subject import Pod, Subject

COUNT = ("sh", "-c", "i=0; while :; do i=$((i+1)); echo count $i; sleep 0.1; done")
RUNNING = api_pb2.CONTAINER_RUNNING


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wherry-t") as name:
        yield Path(name)


def _goes_on(subject: Subject, container: str) -> None:
    path = subject.cri.status(container).log_path

    def size() -> int:
        return os.stat(path).st_size if os.path.exists(path) else 0

    before = size()
    wait_for(lambda: size() > before, "the container to go on", seconds=15)


def _done(call: Callable[[], object]) -> bool:
    """Say whether a call did what it was asked for; a refusal must be one."""
    try:
        call()
    except grpc.RpcError as error:
        code = error.code()
    else:
        return True
    assert code in REFUSALS
    return False


def test_container_is_saved_whole_or_not(subject: Subject, pod: Pod, place: Path) -> None:
    container = pod.run(COUNT)
    _goes_on(subject, container)
    location = place / "saved.tar"
    request = api_pb2.CheckpointContainerRequest(container_id=container, location=str(location), timeout=60)
    saved = _done(lambda: subject.cri.runtime.CheckpointContainer(request, timeout=70))
    assert subject.cri.status(container).state == RUNNING
    _goes_on(subject, container)
    assert os.listdir(place) == (["saved.tar"] if saved else [])
    if saved:
        with tarfile.open(location) as archive:
            names = {name.removeprefix("./") for name in archive.getnames()}
        assert {"config.dump", "spec.dump", "rootfs-diff.tar"} <= names
        assert any(name.startswith("checkpoint/") for name in names)


def test_an_ended_container_is_not_saved(subject: Subject, shared_pod: Pod, place: Path) -> None:
    container = shared_pod.finish(("true",)).id
    request = api_pb2.CheckpointContainerRequest(container_id=container, location=str(place / "saved.tar"))
    refused(lambda: subject.cri.runtime.CheckpointContainer(request, timeout=20))
    assert os.listdir(place) == []


def folder(place: Path) -> Path:
    """Make the directory that a caller has ready for the checkpoint of a pod (cri-api: existing and empty)."""
    (place / "pod").mkdir()
    return place / "pod"


def test_pod_is_saved_and_comes_back_whole_or_not(subject: Subject, place: Path) -> None:
    pod = subject.run()
    names = {"one", "two"}
    made = {name: pod.run(COUNT, name=name) for name in names}
    for container in made.values():
        _goes_on(subject, container)
    request = api_pb2.CheckpointPodRequest(
        pod_sandbox_id=pod.id, output_path=str(folder(place)), container_ids=list(made.values())
    )
    saved = _done(lambda: subject.cri.runtime.CheckpointPod(request, timeout=90))
    for container in made.values():
        assert subject.cri.status(container).state == RUNNING
        _goes_on(subject, container)
    assert bool(os.listdir(place / "pod")) == saved
    subject.cri.remove_pod(pod.id)
    restore = api_pb2.RestorePodRequest(
        checkpoint_path=str(place / "pod"),
        config=pod.config,
        runtime_handler=subject.handler,
        container_configs=[pod.order(COUNT, name=name) for name in sorted(names)],
    )
    before = subject.pod_ids()
    if not saved:
        refused(lambda: subject.cri.runtime.RestorePod(restore, timeout=30))
        assert subject.pod_ids() == before
        return
    answer = subject.cri.runtime.RestorePod(restore, timeout=90)
    subject.adopt(pod.config, answer.pod_sandbox_id)
    assert subject.cri.pod_status(answer.pod_sandbox_id).state == api_pb2.SANDBOX_READY
    assert {one.name for one in answer.restored_containers} == names
    for one in answer.restored_containers:
        if subject.cri.status(one.container_id).state != RUNNING:
            subject.cri.start(one.container_id)
        _goes_on(subject, one.container_id)


UNKNOWN_OPTIONS = {"no-such-option": "1"}


def test_unknown_option_of_a_checkpoint_is_refused(subject: Subject, pod: Pod, place: Path) -> None:
    request = api_pb2.CheckpointPodRequest(pod_sandbox_id=pod.id, output_path=str(folder(place)), options=UNKNOWN_OPTIONS)
    refused(lambda: subject.cri.runtime.CheckpointPod(request, timeout=20))
    assert [*place.rglob("*")] == [place / "pod"]


def test_container_of_another_pod_is_not_saved(subject: Subject, pod: Pod, sleeper: str, place: Path) -> None:
    request = api_pb2.CheckpointPodRequest(pod_sandbox_id=pod.id, output_path=str(folder(place)), container_ids=[sleeper])
    refused(lambda: subject.cri.runtime.CheckpointPod(request, timeout=20))
    assert [*place.rglob("*")] == [place / "pod"]


def test_nothing_is_restored_from_nothing(subject: Subject, place: Path) -> None:
    before = subject.pod_ids()
    for options in ({}, UNKNOWN_OPTIONS):
        request = api_pb2.RestorePodRequest(checkpoint_path=str(place / "none"), config=subject.pod(), options=options)
        refused(lambda request=request: subject.cri.runtime.RestorePod(request, timeout=20))  # type: ignore[misc]  # no default in a lambda
    assert subject.pod_ids() == before


def test_unknown_pod_is_not_saved(subject: Subject, place: Path) -> None:
    request = api_pb2.CheckpointPodRequest(pod_sandbox_id="f" * 64, output_path=str(folder(place)))
    refused(lambda: subject.cri.runtime.CheckpointPod(request, timeout=20), Code.NOT_FOUND)
