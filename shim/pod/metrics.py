"""ListPodSandboxMetrics."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, TypedDict

from shim.container.stats import container_cgroup, layer_dir
from shim.container.status import image_of
from shim.container.stop import LIVE
from shim.gen.runtime.v1 import api_pb2
from shim.pod.cgroup import pod_cgroup
from shim.pod.status import list_pods
from shim.stats import host
from shim.stats.metrics import Reading, encode
from shim.stats.network import read_networks
from shim.stats.processes import look, members, open_files_limit, total
from shim.stats.tasks import referenced, schedules, states, threads
from shim.stats.values import Network, Schedule, Tasks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.pod.node import Node
    from shim.stats.service import Stats
    from shim.stats.values import FileSystem, LayerUsage, Load
    from shim.store.containers import Container
    from shim.store.pods import Pod


class _Asked(TypedDict, total=False):
    """Fields of a Reading that are filled when the configuration asks for them."""

    tasks: Tasks
    load: Load
    schedule: Schedule
    referenced: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """A container and what of it the event loop's thread knows."""

    container: Container
    cgroup: str
    image: str
    layer: LayerUsage | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Around:
    """What is the same for all."""

    devices: dict[tuple[int, int], str]
    file_system: FileSystem | None
    networks: Mapping[str, Network]


async def list_pod_sandbox_metrics(node: Node) -> list[api_pb2.PodSandboxMetrics]:
    """Give the metrics of all ready pods and their living containers."""
    pods = [pod for pod in list_pods(node, api_pb2.PodSandboxFilter()) if pod.ready]
    cgroups = [pod_cgroup(pod.meta.cgroup, pod.config) for pod in pods]
    subjects = [[_subject(node, pod, one) for one in node.containers.of_pod(pod.id) if one.state in LIVE] for pod in pods]
    root, stats = node.config.root, node.stats

    def work() -> list[api_pb2.PodSandboxMetrics]:
        devices = host.device_names()
        around = _Around(
            devices=devices,
            file_system=host.file_system(root, devices),
            networks=read_networks((pod.meta.netns for pod in pods if pod.meta.netns), stats.socket_files),
        )
        return [_pod_metrics(stats, *item, around) for item in zip(pods, cgroups, subjects, strict=True)]

    return await stats.run(work)


def _subject(node: Node, pod: Pod, container: Container) -> _Subject:
    image = image_of(node, container)
    name = image.called(container.config.image.user_specified_image) if image is not None else ""
    return _Subject(
        container=container,
        cgroup=container_cgroup(pod, container),
        image=name or container.meta.image_id,
        layer=node.stats.layers.get(container.id, layer_dir(node, container.id)),
    )


def _pod_metrics(stats: Stats, pod: Pod, cgroup: str, subjects: list[_Subject], around: _Around) -> api_pb2.PodSandboxMetrics:
    metadata = pod.config.metadata
    group = stats.group(pod.id, lambda: cgroup)
    readings = [_read_container(stats, pod, subject, around) for subject in subjects]
    network = around.networks.get(pod.meta.netns, Network())
    reading = Reading(
        at=time.time_ns(),
        labels=("", cgroup, "", pod.id, metadata.namespace, metadata.name),
        usage=group.detailed_usage(),
        details=group.details(numa="memory_numa" in stats.also),
        processes=total(one.processes for one in readings if one.processes),
        started_at=pod.status.ready_at,
        created_at=pod.meta.created_at,
        devices=around.devices,
        interfaces=network.interfaces,
        sockets=network.sockets,
        **_sums(stats, pod.id, readings),
    )
    return api_pb2.PodSandboxMetrics(
        pod_sandbox_id=pod.id,
        metrics=encode(reading, stats.metrics),
        container_metrics=[
            api_pb2.ContainerMetrics(container_id=subject.container.id, metrics=encode(one, stats.metrics))
            for subject, one in zip(subjects, readings, strict=True)
        ],
    )


def _sums(stats: Stats, pod_id: str, readings: list[Reading]) -> _Asked:
    """Add up what was asked for of the containers of a pod; a reaper in it counts as little as a pause process would."""
    asked: _Asked = {}
    if "cpuLoad" in stats.also:
        asked["tasks"] = reduce(Tasks.plus, (one.tasks for one in readings if one.tasks), Tasks())
        asked["load"] = stats.history.load(pod_id, time.time_ns(), asked["tasks"])
    if "sched" in stats.also:
        asked["schedule"] = reduce(Schedule.plus, (one.schedule for one in readings if one.schedule), Schedule())
    if "referenced_memory" in stats.also:
        asked["referenced"] = sum(one.referenced or 0 for one in readings)
    return asked


def _read_container(stats: Stats, pod: Pod, subject: _Subject, around: _Around) -> Reading:
    container, metadata = subject.container, pod.config.metadata
    group = stats.group(container.id, lambda: subject.cgroup)
    status = container.status
    pids = members(group.member_directory)
    return Reading(
        at=time.time_ns(),
        labels=(
            container.config.metadata.name,
            subject.cgroup,
            subject.image,
            container.id,
            metadata.namespace,
            metadata.name,
        ),
        usage=group.detailed_usage(),
        details=group.details(numa="memory_numa" in stats.also),
        processes=look(pids),
        layer=subject.layer,
        file_system=around.file_system,
        limits=container.resources,
        started_at=status.started_at or status.created_at,
        created_at=status.created_at,
        open_files=open_files_limit(status.pid) if status.pid else None,
        devices=around.devices,
        **_asked(stats, container.id, pids),
    )


def _asked(stats: Stats, container_id: str, pids: list[int]) -> _Asked:
    """Read what the configuration asks for of a container's processes."""
    asked: _Asked = {}
    tids = threads(pids) if stats.also & {"cpuLoad", "sched"} else []
    if "cpuLoad" in stats.also:
        asked["tasks"] = states(tids)
        asked["load"] = stats.history.load(container_id, time.time_ns(), asked["tasks"])
    if "sched" in stats.also:
        asked["schedule"] = stats.history.schedule(container_id, schedules(tids))
    if "referenced_memory" in stats.also:
        asked["referenced"] = referenced(pids)
    return asked
