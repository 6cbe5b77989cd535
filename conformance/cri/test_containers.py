"""Containers: their life, their status, the filters of the list, repetitions and refusals."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from conformance.cri.subject import Code, refused
from shim.gen.runtime.v1 import api_pb2
from tests.support.images import busybox_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.cri.subject import Pod, Subject
    from tests.support.registry import Registry

    Filter = Callable[[Pod, str], api_pb2.ContainerFilter]

CREATED, RUNNING, EXITED = api_pb2.CONTAINER_CREATED, api_pb2.CONTAINER_RUNNING, api_pb2.CONTAINER_EXITED
MINUTES = 600 * 10**9


def test_life(subject: Subject, pod: Pod) -> None:
    container = pod.create(("sh", "-c", "exit 3"))
    status = subject.cri.status(container)
    assert (status.state, status.started_at, status.finished_at) == (CREATED, 0, 0)
    subject.cri.start(container)
    status = subject.cri.wait_exit(container)
    assert (status.state, status.exit_code, status.reason) == (EXITED, 3, "Error")
    assert 0 < status.created_at <= status.started_at <= status.finished_at
    assert abs(time.time_ns() - status.finished_at) < MINUTES
    subject.cri.remove(container)
    refused(lambda: subject.cri.status(container), Code.NOT_FOUND)


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        ("exit 0", 0, "Completed"),
        ("exit 1", 1, "Error"),
        ("exit 255", 255, "Error"),
        ("sh -c 'kill -9 $$'; exit $?", 137, "Error"),
        ("sh -c 'kill -15 $$'; exit $?", 143, "Error"),
        ("trap 'exit 7' TERM; kill -15 $$; sleep 1", 7, "Error"),
    ],
)
def test_exit_code(shared_pod: Pod, script: str, code: int, reason: str) -> None:
    status = shared_pod.finish(("sh", "-c", script))
    assert (status.exit_code, status.reason) == (code, reason)


STATUS: dict[str, Callable[[Pod, api_pb2.ContainerStatus], bool]] = {
    "metadata": lambda _pod, status: (status.metadata.name, status.metadata.attempt) == ("full", 4),
    "state": lambda _pod, status: status.state == RUNNING,
    "image": lambda pod, status: status.image.image in (pod.image, status.image_id),
    "image_ref": lambda _pod, status: "sha256:" in status.image_ref,
    "image_id": lambda _pod, status: status.image_id.startswith("sha256:"),
    "labels": lambda _pod, status: dict(status.labels) == {"a": "1", "b": ""},
    "annotations": lambda _pod, status: dict(status.annotations) == {"x.test/y": "z"},
    "log_path": lambda pod, status: status.log_path == f"{pod.config.log_directory}/full_4.log",
    "mounts": lambda _pod, status: "/mnt/logs" in {mount.container_path for mount in status.mounts},
    "resources": lambda _pod, status: status.resources.linux.cpu_shares == 512,
    "user": lambda _pod, status: (status.user.linux.uid, status.user.linux.gid) == (1000, 1001),
    "supplemental groups": lambda _pod, status: 4242 in status.user.linux.supplemental_groups,
    "no exit": lambda _pod, status: (status.exit_code, status.finished_at) == (0, 0),
}


@pytest.fixture(scope="module")
def full(endpoint: Subject, shared_pod: Pod) -> str:
    order = shared_pod.order(labels={"a": "1", "b": ""}, annotations={"x.test/y": "z"}, log_path="full_4.log")
    order.metadata.name, order.metadata.attempt, order.log_path = "full", 4, "full_4.log"
    order.mounts.append(api_pb2.Mount(container_path="/mnt/logs", host_path=str(endpoint.logs), readonly=True))
    order.linux.resources.cpu_shares = 512
    security = order.linux.security_context
    security.run_as_user.value, security.run_as_group.value = 1000, 1001
    security.supplemental_groups.append(4242)
    container = endpoint.cri.create(shared_pod.id, order, shared_pod.config)
    endpoint.cri.start(container)
    return container


@pytest.mark.parametrize("name", STATUS)
def test_status_has(subject: Subject, shared_pod: Pod, full: str, name: str) -> None:
    status = subject.cri.status(full)
    assert STATUS[name](shared_pod, status), status


def test_verbose_status_is_json(subject: Subject, full: str) -> None:
    info = subject.cri.info(full)
    assert info["pid"] > 0
    assert json.dumps(info["runtimeSpec"])


def test_status_is_brief_unless_asked(subject: Subject, full: str) -> None:
    assert not subject.cri.runtime.ContainerStatus(api_pb2.ContainerStatusRequest(container_id=full), timeout=5).info


def test_list_shows_what_status_shows(subject: Subject, full: str) -> None:
    (item,) = (one for one in subject.cri.containers() if one.id == full)
    status = subject.cri.status(full)
    for name in ("metadata", "state", "created_at", "image_id"):
        assert getattr(item, name) == getattr(status, name), name
    assert (dict(item.labels), dict(item.annotations)) == (dict(status.labels), dict(status.annotations))


def _state(state: api_pb2.ContainerState) -> api_pb2.ContainerStateValue:
    return api_pb2.ContainerStateValue(state=state)


FILTERS: dict[str, tuple[Filter, bool]] = {
    "id": (lambda _pod, one: api_pb2.ContainerFilter(id=one), True),
    "beginning of the id": (lambda _pod, one: api_pb2.ContainerFilter(id=one[:13]), True),
    "another id": (lambda _pod, _one: api_pb2.ContainerFilter(id="0" * 64), False),
    "pod": (lambda pod, _one: api_pb2.ContainerFilter(pod_sandbox_id=pod.id), True),
    "beginning of the pod's id": (lambda pod, _one: api_pb2.ContainerFilter(pod_sandbox_id=pod.id[:13]), True),
    "another pod": (lambda _pod, _one: api_pb2.ContainerFilter(pod_sandbox_id="0" * 64), False),
    "running": (lambda pod, _one: api_pb2.ContainerFilter(pod_sandbox_id=pod.id, state=_state(RUNNING)), True),
    "created": (lambda pod, _one: api_pb2.ContainerFilter(pod_sandbox_id=pod.id, state=_state(CREATED)), False),
    "exited": (lambda pod, _one: api_pb2.ContainerFilter(pod_sandbox_id=pod.id, state=_state(EXITED)), False),
    "label": (lambda _pod, _one: api_pb2.ContainerFilter(label_selector={"a": "1"}), True),
    "empty label": (lambda _pod, _one: api_pb2.ContainerFilter(label_selector={"a": "1", "b": ""}), True),
    "wrong label": (lambda _pod, _one: api_pb2.ContainerFilter(label_selector={"a": "2"}), False),
    "id and pod": (lambda pod, one: api_pb2.ContainerFilter(id=one, pod_sandbox_id=pod.id), True),
    "id and another pod": (lambda _pod, one: api_pb2.ContainerFilter(id=one, pod_sandbox_id="0" * 64), False),
    "nothing": (lambda _pod, _one: api_pb2.ContainerFilter(), True),
}


@pytest.mark.parametrize("name", FILTERS)
def test_list_filters_by(subject: Subject, shared_pod: Pod, full: str, name: str) -> None:
    make, expected = FILTERS[name]
    request = api_pb2.ListContainersRequest(filter=make(shared_pod, full))
    found = {item.id for item in subject.cri.runtime.ListContainers(request, timeout=5).containers}
    assert (full in found) is expected


def test_no_container_without_a_pod(subject: Subject, shared_pod: Pod) -> None:
    refused(lambda: subject.cri.create("f" * 64, shared_pod.order(), shared_pod.config))


def test_start_of_a_running_container_is_refused(subject: Subject, sleeper: str) -> None:
    refused(lambda: subject.cri.start(sleeper))
    assert subject.cri.status(sleeper).state == RUNNING


def test_start_of_an_exited_container_is_refused(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.finish(("true",)).id
    refused(lambda: subject.cri.start(container))
    assert subject.cri.status(container).state == EXITED


def test_stop_of_a_stopped_container_is_no_error(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.run()
    for _ in range(3):
        subject.cri.stop(container)
    status = subject.cri.status(container)
    assert (status.state, status.exit_code) == (EXITED, 137)


def test_stop_of_a_created_container(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.create()
    subject.cri.stop(container)
    subject.cri.remove(container)
    assert container not in subject.container_ids()


@pytest.mark.parametrize("name", ["StopContainer", "RemoveContainer"])
def test_unknown_container_is_no_error(subject: Subject, name: str) -> None:
    getattr(subject.cri.runtime, name)(getattr(api_pb2, f"{name}Request")(container_id="f" * 64), timeout=5)


@pytest.mark.parametrize("name", ["StopContainer", "RemoveContainer"])
def test_removed_container_is_no_error(subject: Subject, shared_pod: Pod, name: str) -> None:
    container = shared_pod.create()
    subject.cri.remove(container)
    getattr(subject.cri.runtime, name)(getattr(api_pb2, f"{name}Request")(container_id=container), timeout=5)


@pytest.mark.parametrize(
    "name",
    [
        *("StartContainer", "ContainerStatus", "ContainerStats", "ReopenContainerLog", "UpdateContainerResources"),
        *("CheckpointContainer", "ExecSync", "Exec", "Attach"),
    ],
)
def test_unknown_container_is_not_found(subject: Subject, name: str) -> None:
    request = getattr(api_pb2, f"{name}Request")(container_id="f" * 64)
    if "Exec" in name:
        request.cmd.append("true")
    if name in {"Exec", "Attach"}:
        request.stdout = True
    refused(lambda: getattr(subject.cri.runtime, name)(request, timeout=5), Code.NOT_FOUND)


def test_remove_of_a_running_container_ends_it(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.run()
    subject.cri.remove(container)
    assert container not in subject.container_ids()


def test_next_attempt_beside_the_exited_one(subject: Subject, pod: Pod) -> None:
    order = pod.order(("true",), name="again")
    first = subject.cri.create(pod.id, order, pod.config)
    subject.cri.start(first)
    subject.cri.wait_exit(first)
    order.metadata.attempt = 1
    second = subject.cri.create(pod.id, order, pod.config)
    assert first != second
    assert {one.metadata.attempt for one in pod.containers} == {0, 1}


def test_same_name_after_removal(subject: Subject, shared_pod: Pod) -> None:
    order = shared_pod.order()
    first = subject.cri.create(shared_pod.id, order, shared_pod.config)
    subject.cri.remove(first)
    assert subject.cri.create(shared_pod.id, order, shared_pod.config) != first


def test_same_name_in_two_pods(pod: Pod, shared_pod: Pod) -> None:
    assert pod.create(name="twin") != shared_pod.create(name="twin")


def test_stop_waits_for_the_grace_period(subject: Subject, shared_pod: Pod) -> None:
    ready = "echo ready; while :; do sleep 0.1; done"
    container = shared_pod.run(("sh", "-c", f"trap 'sleep 0.5; exit 5' TERM; {ready}"))
    _until_ready(subject, container)
    subject.cri.stop(container, timeout=20)
    assert subject.cri.status(container).exit_code == 5


TRAPS = ("sh", "-c", "trap 'exit 6' USR1; trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done")


def test_stop_signal(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.run(TRAPS, stop_signal=api_pb2.SIGNAL_SIGUSR1)
    _until_ready(subject, container)
    assert subject.cri.status(container).stop_signal == api_pb2.SIGNAL_SIGUSR1
    subject.cri.stop(container, timeout=20)
    assert subject.cri.status(container).exit_code == 6


def test_stop_signal_of_the_image(subject: Subject, registry: Registry, shared_pod: Pod) -> None:
    image = registry.push(f"signal/{uuid.uuid4().hex[:8]}", "1", busybox_image(config={"StopSignal": "SIGUSR1"}))
    subject.images.pull(image)
    container = shared_pod.run(TRAPS, image=api_pb2.ImageSpec(image=image))
    _until_ready(subject, container)
    subject.cri.stop(container, timeout=20)
    assert subject.cri.status(container).exit_code == 6
    subject.cri.remove(container)
    subject.images.remove_image(image)


def test_stop_kills_after_the_grace_period(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.run(("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"))
    _until_ready(subject, container)
    started = time.monotonic()
    subject.cri.stop(container, timeout=1)
    assert 0.8 < time.monotonic() - started < 10
    assert subject.cri.status(container).exit_code == 137


def _until_ready(subject: Subject, container: str) -> None:
    from conformance.cri.subject import wait_log

    wait_log(subject.cri.status(container).log_path, "ready")


def test_a_created_container_has_no_process_to_execute_in(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.create()
    refused(lambda: subject.cri.execute(container, "true"))


@pytest.mark.parametrize("command", ["nope-nope", "/nope", "/etc"])
def test_a_command_that_cannot_run(subject: Subject, shared_pod: Pod, command: str) -> None:
    container = shared_pod.create((command,))
    refused(lambda: subject.cri.start(container))
    status = subject.cri.status(container)
    assert status.state == EXITED
    assert status.exit_code in (126, 127, 128)
    assert status.message


def test_ids_are_unique_and_long(subject: Subject, pod: Pod) -> None:
    ids = {pod.create() for _ in range(4)}
    assert len(ids) == 4
    assert all(len(one) == 64 and set(one) <= set("0123456789abcdef") for one in ids)
    assert ids == {one.id for one in pod.containers}
    assert {one.pod_sandbox_id for one in pod.containers} == {pod.id}
    assert subject.cri.status(min(ids)[:20]).id == min(ids)
