"""Pods: their life, their status, the filters of the list, repetitions and refusals."""

from __future__ import annotations

import ipaddress
import json
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from conformance.cri.subject import OWNER, Code, refused, wait_state
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.cri.subject import Pod, Subject

    Check = Callable[[Pod, api_pb2.PodSandboxStatus], bool]
    Filter = Callable[[Pod], api_pb2.PodSandboxFilter]

STATUS: dict[str, Check] = {
    "id": lambda pod, status: status.id == pod.id,
    "metadata": lambda pod, status: status.metadata == pod.config.metadata,
    "state": lambda _pod, status: status.state == api_pb2.SANDBOX_READY,
    "created_at": lambda _pod, status: abs(time.time_ns() - status.created_at) < 600 * 10**9,
    "labels": lambda pod, status: dict(status.labels) == dict(pod.config.labels),
    "annotations": lambda _pod, status: status.annotations["conformance/note"] == "ä note",
    "network mode": lambda _pod, status: status.linux.namespaces.options.network == api_pb2.NODE,
    "pid mode": lambda _pod, status: status.linux.namespaces.options.pid == api_pb2.CONTAINER,
    "ipc mode": lambda _pod, status: status.linux.namespaces.options.ipc == api_pb2.POD,
    "no address in the node's network": lambda _pod, status: status.network.ip == "",
}


@pytest.fixture(scope="module")
def noted(endpoint: Subject) -> Pod:
    return endpoint.run(annotations={"conformance/note": "ä note"})


@pytest.mark.parametrize("name", STATUS)
def test_status_has(subject: Subject, noted: Pod, name: str) -> None:
    status = subject.cri.pod_status(noted.id)
    assert STATUS[name](noted, status), status


def test_verbose_status_is_json(subject: Subject, noted: Pod) -> None:
    request = api_pb2.PodSandboxStatusRequest(pod_sandbox_id=noted.id, verbose=True)
    info = subject.cri.runtime.PodSandboxStatus(request, timeout=5).info
    assert isinstance(json.loads(info["info"]), dict)


def test_status_has_the_containers(subject: Subject, pod: Pod) -> None:
    container = pod.run()
    answer = subject.cri.runtime.PodSandboxStatus(api_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod.id), timeout=5)
    assert [one.id for one in answer.containers_statuses] == [container]
    assert answer.timestamp > 0


def test_status_has_the_newest_container_first(subject: Subject, pod: Pod) -> None:
    """Kubelet with evented PLEG takes the first of a name for the current one and does not sort."""
    made = [pod.run(name=name) for name in ("one", "two", "three", "four", "five")]
    answer = subject.cri.runtime.PodSandboxStatus(api_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod.id), timeout=5)
    assert [one.id for one in answer.containers_statuses] == made[::-1]


def test_pod_network_gives_an_address(subject: Subject) -> None:
    pod = subject.run(network=True)
    status = subject.cri.pod_status(pod.id)
    ipaddress.ip_address(status.network.ip)  # raises ValueError for what is none
    assert status.linux.namespaces.options.network == api_pb2.POD
    assert status.network.ip in subject.cri.execute(pod.run(), "ip", "address").stdout.decode()


def test_two_pods_have_two_addresses(subject: Subject) -> None:
    addresses = {subject.cri.pod_status(subject.run(network=True).id).network.ip for _ in range(2)}
    assert len(addresses) == 2


def test_hostname(subject: Subject) -> None:
    pod = subject.run(network=True, hostname="some-name")
    container = pod.run()
    assert subject.cri.execute(container, "hostname").stdout == b"some-name\n"
    assert subject.cri.execute(container, "cat", "/etc/hostname").stdout == b"some-name\n"


def test_dns(subject: Subject) -> None:
    dns = api_pb2.DNSConfig(servers=["192.0.2.1", "2001:db8::1"], searches=["a.test", "b.test"], options=["ndots:7"])
    lines = subject.cri.execute(subject.run(dns_config=dns).run(), "cat", "/etc/resolv.conf").stdout.decode().splitlines()
    assert {"nameserver 192.0.2.1", "nameserver 2001:db8::1", "options ndots:7"} <= set(lines)
    assert "search a.test b.test" in lines


def test_no_dns_means_the_node_s(subject: Subject) -> None:
    with open("/etc/resolv.conf", encoding="utf-8") as file:
        wanted = [line.split() for line in file if line.startswith("nameserver")]
    found = subject.cri.execute(subject.run().run(), "cat", "/etc/resolv.conf").stdout.decode()
    assert [line.split() for line in found.splitlines() if line.startswith("nameserver")] == wanted


def test_sysctl(subject: Subject) -> None:
    config = subject.pod(network=True)
    config.linux.sysctls["net.ipv4.ip_local_port_range"] = "20000\t20100"
    pod = subject.run_config(config)
    found = subject.cri.execute(pod.run(), "cat", "/proc/sys/net/ipv4/ip_local_port_range").stdout
    assert found.split() == [b"20000", b"20100"]


def test_what_kubelet_says_of_the_sandbox_s_process(subject: Subject) -> None:
    """A runtime with a process of its own in each pod confines it by this; another has no use for it."""
    config = subject.pod()
    security = config.linux.security_context
    security.run_as_user.value, security.run_as_group.value = 65535, 65535
    security.supplemental_groups.extend([7, 8])
    security.supplemental_groups_policy = api_pb2.Strict
    security.readonly_rootfs = True
    security.seccomp.profile_type = api_pb2.SecurityProfile.RuntimeDefault
    security.seccomp_profile_path = "runtime/default"
    security.apparmor.profile_type = api_pb2.SecurityProfile.Unconfined
    assert subject.run_config(config).finish(("true",)).exit_code == 0


def test_port_mapping_is_kept(subject: Subject) -> None:
    mapping = api_pb2.PortMapping(protocol=api_pb2.TCP, container_port=80, host_port=0)
    assert subject.cri.pod_status(subject.run(network=True, port_mappings=[mapping]).id).state == api_pb2.SANDBOX_READY


FILTERS: dict[str, tuple[Filter, bool]] = {
    "id": (lambda pod: api_pb2.PodSandboxFilter(id=pod.id), True),
    "beginning of the id": (lambda pod: api_pb2.PodSandboxFilter(id=pod.id[:13]), True),
    "another id": (lambda _pod: api_pb2.PodSandboxFilter(id="0" * 64), False),
    "ready": (lambda pod: api_pb2.PodSandboxFilter(id=pod.id, state=_state(api_pb2.SANDBOX_READY)), True),
    "not ready": (lambda pod: api_pb2.PodSandboxFilter(id=pod.id, state=_state(api_pb2.SANDBOX_NOTREADY)), False),
    "label": (lambda _pod: api_pb2.PodSandboxFilter(label_selector={"unique": "yes"}), True),
    "two labels": (lambda _pod: api_pb2.PodSandboxFilter(label_selector={"unique": "yes", OWNER: "yes"}), True),
    "label of another value": (lambda _pod: api_pb2.PodSandboxFilter(label_selector={"unique": "no"}), False),
    "one label of two": (lambda _pod: api_pb2.PodSandboxFilter(label_selector={"unique": "yes", "other": "yes"}), False),
    "id and label": (lambda pod: api_pb2.PodSandboxFilter(id=pod.id, label_selector={"unique": "yes"}), True),
    "id and wrong label": (lambda pod: api_pb2.PodSandboxFilter(id=pod.id, label_selector={"unique": "no"}), False),
    "nothing": (lambda _pod: api_pb2.PodSandboxFilter(), True),
}


def _state(state: api_pb2.PodSandboxState) -> api_pb2.PodSandboxStateValue:
    return api_pb2.PodSandboxStateValue(state=state)


@pytest.fixture(scope="module")
def labelled(endpoint: Subject) -> Pod:
    return endpoint.run(labels={"unique": "yes"})


@pytest.mark.parametrize("name", FILTERS)
def test_list_filters_by(subject: Subject, labelled: Pod, name: str) -> None:
    make, expected = FILTERS[name]
    request = api_pb2.ListPodSandboxRequest(filter=make(labelled))
    found = {item.id for item in subject.cri.runtime.ListPodSandbox(request, timeout=5).items}
    assert (labelled.id in found) is expected
    if name != "nothing":
        assert found <= {labelled.id}


def test_list_shows_what_status_shows(subject: Subject, labelled: Pod) -> None:
    (item,) = (one for one in subject.cri.pods() if one.id == labelled.id)
    status = subject.cri.pod_status(labelled.id)
    for name in ("metadata", "state", "created_at", "runtime_handler"):
        assert getattr(item, name) == getattr(status, name), name
    assert (dict(item.labels), dict(item.annotations)) == (dict(status.labels), dict(status.annotations))


def test_stop_makes_it_not_ready(subject: Subject, pod: Pod) -> None:
    subject.cri.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=30)
    assert subject.cri.pod_status(pod.id).state == api_pb2.SANDBOX_NOTREADY
    request = api_pb2.ListPodSandboxRequest(filter=api_pb2.PodSandboxFilter(id=pod.id, state=_state(api_pb2.SANDBOX_NOTREADY)))
    assert len(subject.cri.runtime.ListPodSandbox(request, timeout=5).items) == 1


def test_stop_ends_the_containers(subject: Subject, pod: Pod) -> None:
    running, created = [pod.run(), pod.run()], pod.create()
    subject.cri.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=30)
    assert {subject.cri.status(one).state for one in running} == {api_pb2.CONTAINER_EXITED}
    assert subject.cri.status(created).state != api_pb2.CONTAINER_RUNNING
    refused(lambda: subject.cri.start(created))


def test_stop_of_a_stopped_pod_is_no_error(subject: Subject, pod: Pod) -> None:
    for _ in range(3):
        subject.cri.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=30)


def test_remove_of_a_running_pod_takes_its_containers(subject: Subject, pod: Pod) -> None:
    container = pod.run()
    subject.cri.runtime.RemovePodSandbox(api_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=30)
    assert pod.id not in subject.pod_ids()
    assert container not in subject.container_ids()


@pytest.mark.parametrize("name", ["StopPodSandbox", "RemovePodSandbox"])
def test_unknown_pod_is_no_error(subject: Subject, name: str) -> None:
    request = getattr(api_pb2, f"{name}Request")(pod_sandbox_id="f" * 64)
    getattr(subject.cri.runtime, name)(request, timeout=5)


@pytest.mark.parametrize("name", ["StopPodSandbox", "RemovePodSandbox"])
def test_removed_pod_is_no_error(subject: Subject, pod: Pod, name: str) -> None:
    subject.cri.remove_pod(pod.id)
    request = getattr(api_pb2, f"{name}Request")(pod_sandbox_id=pod.id)
    getattr(subject.cri.runtime, name)(request, timeout=5)


@pytest.mark.parametrize("name", ["PodSandboxStatus", "PodSandboxStats", "PortForward", "UpdatePodSandboxResources"])
def test_unknown_pod_is_not_found(subject: Subject, name: str) -> None:
    request = getattr(api_pb2, f"{name}Request")(pod_sandbox_id="f" * 64)
    refused(lambda: getattr(subject.cri.runtime, name)(request, timeout=5), Code.NOT_FOUND)


def test_removed_pod_is_not_found(subject: Subject, pod: Pod) -> None:
    subject.cri.remove_pod(pod.id)
    refused(lambda: subject.cri.pod_status(pod.id), Code.NOT_FOUND)
    refused(pod.create)


def test_status_takes_the_beginning_of_an_id(subject: Subject, labelled: Pod) -> None:
    assert subject.cri.pod_status(labelled.id[:20]).id == labelled.id


def test_a_container_in_a_stopped_pod_is_refused(subject: Subject, pod: Pod) -> None:
    subject.cri.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=30)
    refused(pod.create)
    assert pod.containers == []


def test_next_attempt_beside_the_stopped_one(subject: Subject, pod: Pod) -> None:
    subject.cri.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=30)
    again = api_pb2.PodSandboxConfig()
    again.CopyFrom(pod.config)
    again.metadata.attempt = 1
    second = subject.run_config(again)
    assert second.id != pod.id
    assert subject.cri.pod_status(second.id).metadata.attempt == 1


def test_same_name_after_removal(subject: Subject, pod: Pod) -> None:
    subject.cri.remove_pod(pod.id)
    assert subject.run_config(pod.config).id != pod.id


def test_containers_share_the_pod_s_ipc(subject: Subject, pod: Pod) -> None:
    first, second = pod.run(), pod.run()
    assert subject.cri.execute(first, "sh", "-c", "echo hello > /dev/shm/note").exit_code == 0
    assert subject.cri.execute(second, "cat", "/dev/shm/note").stdout == b"hello\n"


def test_containers_share_the_pod_s_network(subject: Subject) -> None:
    pod = subject.run(network=True)
    links = {subject.cri.execute(pod.run(), "readlink", "/proc/self/ns/net").stdout for _ in range(2)}
    assert len(links) == 1


def test_a_shared_pid_namespace(subject: Subject) -> None:
    config = subject.pod()
    config.linux.security_context.namespace_options.pid = api_pb2.POD
    pod = subject.run_config(config)
    mark = f"mark{uuid.uuid4().hex[:8]}"
    pod.run(("sh", "-c", "while :; do sleep 1; done", mark))
    assert mark in subject.cri.execute(pod.run(), "sh", "-c", "cat /proc/[0-9]*/cmdline").stdout.decode()


def test_the_node_s_pid_namespace(subject: Subject) -> None:
    config = subject.pod()
    config.linux.security_context.namespace_options.pid = api_pb2.NODE
    container = subject.run_config(config).run()
    inside = subject.cri.execute(container, "readlink", "/proc/self/ns/pid").stdout.decode().strip()
    own = subject.run().run()
    assert inside != subject.cri.execute(own, "readlink", "/proc/self/ns/pid").stdout.decode().strip()
    wait_state(subject.cri, container, api_pb2.CONTAINER_RUNNING)
