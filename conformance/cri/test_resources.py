"""Limits and devices of containers and pods that few ask for: pages, memory nodes, raw cgroup values, CDI, overhead."""

from __future__ import annotations

import json
import os
import uuid
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from conformance.cri.subject import refused
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.cri.subject import Pod, Subject

CGROUP = "/sys/fs/cgroup"
PAGES = 2 << 20
V2 = os.path.exists(f"{CGROUP}/cgroup.controllers")


def _run(subject: Subject, pod: Pod, **resources: Any) -> str:
    order = pod.order()
    order.linux.resources.MergeFrom(api_pb2.LinuxContainerResources(**resources))
    container = subject.cri.create(pod.id, order, pod.config)
    subject.cri.start(container)
    return container


def _read(subject: Subject, container: str, *paths: str) -> str:
    """Give the first line of the first of some files below the container's /sys/fs/cgroup."""
    words = " ".join(f"{CGROUP}/{path}" for path in paths)
    return str(subject.cri.execute(container, "sh", "-c", f"cat {words} 2>/dev/null | head -1").stdout.decode().strip())


def test_memory_nodes(subject: Subject, shared_pod: Pod) -> None:
    container = _run(subject, shared_pod, cpuset_mems="0", cpuset_cpus="0")
    assert _read(subject, container, "cpuset/cpuset.mems", "cpuset.mems") == "0"
    assert _read(subject, container, "cpuset/cpuset.cpus", "cpuset.cpus") == "0"
    shown = subject.cri.status(container).resources.linux
    assert (shown.cpuset_mems, shown.cpuset_cpus) == ("0", "0")


def _has_huge_pages() -> bool:
    if V2:
        with open(f"{CGROUP}/cgroup.controllers", encoding="ascii") as file:
            return "hugetlb" in file.read().split()
    return os.path.exists(f"{CGROUP}/hugetlb/cgroup.procs")


LIMIT = [api_pb2.HugepageLimit(page_size="2MB", limit=PAGES)]

if _has_huge_pages():  # pages of other sizes than the processor's are nowhere, those of 2 MB nearly everywhere

    def test_huge_pages(subject: Subject, shared_pod: Pod) -> None:
        container = _run(subject, shared_pod, hugepage_limits=LIMIT)
        assert _read(subject, container, "hugetlb/hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max") == str(PAGES)
        assert list(subject.cri.status(container).resources.linux.hugepage_limits) == LIMIT

    def test_huge_pages_of_no_size(subject: Subject, shared_pod: Pod) -> None:
        limit = [api_pb2.HugepageLimit(page_size="3MB", limit=PAGES)]
        before = subject.container_ids()
        container = ""
        try:
            container = subject.cri.create(shared_pod.id, _limited(shared_pod, limit), shared_pod.config)
        except grpc.RpcError:  # refused, or left out
            assert subject.container_ids() == before
        else:
            subject.cri.start(container)


def _limited(pod: Pod, limits: list[api_pb2.HugepageLimit]) -> api_pb2.ContainerConfig:
    order = pod.order()
    order.linux.resources.hugepage_limits.extend(limits)
    return order


if V2:

    def test_raw_values(subject: Subject, shared_pod: Pod) -> None:
        container = _run(subject, shared_pod, unified={"memory.high": str(64 << 20), "pids.max": "77"})
        assert _read(subject, container, "memory.high") == str(64 << 20)
        assert _read(subject, container, "pids.max") == "77"

    def test_raw_value_that_is_a_path(subject: Subject, shared_pod: Pod) -> None:
        refused(lambda: _run(subject, shared_pod, unified={"../memory.high": "1"}))

else:

    def test_raw_values_need_version_2(subject: Subject, shared_pod: Pod) -> None:
        before = subject.container_ids()
        refused(lambda: _run(subject, shared_pod, unified={"memory.high": str(64 << 20)}))
        for container in subject.container_ids() - before:
            subject.cri.remove(container)


@pytest.fixture
def device(subject: Subject) -> Iterator[str]:
    """Give the name of a device that a vendor has described."""
    kind = f"conformance.test/c{uuid.uuid4().hex[:8]}"
    edits = {"env": ["CDI=here"], "deviceNodes": [{"path": "/dev/cdi0", "hostPath": "/dev/zero"}]}
    document = {"cdiVersion": "0.5.0", "kind": kind, "devices": [{"name": "one", "containerEdits": edits}]}
    made = not subject.cdi_dir.exists()
    subject.cdi_dir.mkdir(parents=True, exist_ok=True)
    file = subject.cdi_dir / f"{kind.replace('/', '-')}.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    yield f"{kind}=one"
    file.unlink()
    if made:
        subject.cdi_dir.rmdir()


SHOW = "echo $CDI; head -c 3 /dev/cdi0 | wc -c"


def test_device_of_a_vendor(shared_pod: Pod, device: str) -> None:
    assert shared_pod.shell(SHOW, CDI_devices=[api_pb2.CDIDevice(name=device)]) == "here\n3\n"


def test_device_of_a_vendor_by_annotation(shared_pod: Pod, device: str) -> None:
    assert shared_pod.shell(SHOW, annotations={"cdi.k8s.io/conformance": device}) == "here\n3\n"


@pytest.mark.parametrize("name", ["conformance.test/none=one", "zero", "a/b=c=d", ""])
def test_device_that_no_vendor_has(subject: Subject, shared_pod: Pod, name: str) -> None:
    before = subject.container_ids()
    refused(lambda: shared_pod.create(CDI_devices=[api_pb2.CDIDevice(name=name)]))
    assert subject.container_ids() == before


def test_pod_says_what_it_will_use(subject: Subject) -> None:
    """kubelet tells both; it has made the pod's cgroup itself by them."""
    config = subject.pod()
    config.linux.overhead.memory_limit_in_bytes = 16 << 20
    config.linux.resources.memory_limit_in_bytes = 256 << 20
    assert subject.run_config(config).finish(("true",)).exit_code == 0


def test_update_of_a_pod_with_overhead(subject: Subject, pod: Pod) -> None:
    request = api_pb2.UpdatePodSandboxResourcesRequest(
        pod_sandbox_id=pod.id,
        overhead=api_pb2.LinuxContainerResources(cpu_shares=100, memory_limit_in_bytes=16 << 20),
        resources=api_pb2.LinuxContainerResources(cpu_shares=512, memory_limit_in_bytes=256 << 20),
    )
    for _ in range(2):
        subject.cri.runtime.UpdatePodSandboxResources(request, timeout=10)
    assert pod.finish(("true",)).exit_code == 0


def test_update_with_annotations(subject: Subject, shared_pod: Pod) -> None:
    container = shared_pod.run()
    request = api_pb2.UpdateContainerResourcesRequest(
        container_id=container, linux=api_pb2.LinuxContainerResources(cpu_shares=777), annotations={"x.test/why": "resize"}
    )
    subject.cri.runtime.UpdateContainerResources(request, timeout=10)
    assert subject.cri.status(container).resources.linux.cpu_shares == 777
