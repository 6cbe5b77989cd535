"""Metrics of pods and containers as the CRI carries them, made of one table (`catalog`).

ListMetricDescriptors and ListPodSandboxMetrics both come from it, so they cannot disagree. The CRI's values are whole
numbers: what is named seconds is in whole seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shim.gen.runtime.v1 import api_pb2
from shim.stats.catalog import METRICS
from shim.stats.catalog_asked import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.stats.catalog import Metric
    from shim.stats.values import (
        Details,
        FileSystem,
        Interface,
        LayerUsage,
        Load,
        Processes,
        Schedule,
        Sockets,
        Tasks,
        Usage,
    )

LABELS = ("container", "id", "image", "name", "namespace", "pod")
"""On every metric, in this order, as cAdvisor has them in kubelet: `id` is the path of the cgroup, `name` the CRI's id."""

TYPES = {"counter": api_pb2.COUNTER, "gauge": api_pb2.GAUGE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Everything that is known of one pod or container at `at`; None is what is not known, or not asked of a pod."""

    at: int
    labels: tuple[str, ...]
    """Values of LABELS."""
    usage: Usage | None = None
    details: Details | None = None
    processes: Processes | None = None
    layer: LayerUsage | None = None
    file_system: FileSystem | None = None
    limits: api_pb2.LinuxContainerResources | None = None
    started_at: int = 0
    open_files: int | None = None
    devices: Mapping[tuple[int, int], str] = field(default_factory=dict)
    """Names of block devices."""
    interfaces: tuple[Interface, ...] = ()
    created_at: int = 0
    sockets: Sockets | None = None
    tasks: Tasks | None = None
    load: Load | None = None
    schedule: Schedule | None = None
    referenced: int | None = None


def chosen(also: tuple[str, ...]) -> tuple[Metric, ...]:
    """Give the metrics of a node that is configured to have these kinds beside the usual ones."""
    return METRICS + tuple(metric for kind in also for metric in KINDS[kind])


def descriptors(metrics: tuple[Metric, ...], without: frozenset[str] = frozenset()) -> list[api_pb2.MetricDescriptor]:
    """Give every metric's name, meaning and labels, but for those `without` names."""
    return [
        api_pb2.MetricDescriptor(name=metric.name, help=metric.help, label_keys=[*LABELS, *metric.labels])
        for metric in metrics
        if metric.name not in without
    ]


def encode(reading: Reading, metrics: tuple[Metric, ...]) -> list[api_pb2.Metric]:
    """Give those of the metrics for which `reading` has a value."""
    return [
        api_pb2.Metric(
            name=metric.name,
            timestamp=reading.at,
            metric_type=TYPES[metric.kind],
            label_values=[*reading.labels, *labels],
            value=api_pb2.UInt64Value(value=value),
        )
        for metric in metrics
        for labels, value in metric.values(reading)
    ]
