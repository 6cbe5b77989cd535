"""The table of metrics: complete, of one piece, and true to what was read."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

from shim.config import METRIC_KINDS
from shim.gen.runtime.v1 import api_pb2
from shim.stats import messages
from shim.stats.catalog_asked import KINDS
from shim.stats.metrics import LABELS, Reading, chosen, descriptors, encode
from shim.stats.values import (
    Cpu,
    Datagrams,
    Details,
    DeviceIo,
    FileSystem,
    HugePages,
    Interface,
    LayerUsage,
    Load,
    Memory,
    MemoryEvents,
    NumaPages,
    Pressure,
    Processes,
    Schedule,
    Sockets,
    Stall,
    Tasks,
    Usage,
)

SECOND = 1_000_000_000
STALL = Stall(total=3_000_000, avg10=1.0, avg60=2.0, avg300=3.0)
PRESSURE = Pressure(some=STALL, full=STALL)
MEMORY = Memory(
    usage=100,
    rss=50,
    cache=40,
    inactive_file=30,
    active_file=10,
    mapped_file=5,
    page_faults=7,
    major_page_faults=2,
    swap=1,
    limit=200,
    stat={
        b"file_dirty": 21,
        b"file_writeback": 22,
        b"pgscan": 23,
        b"pgsteal": 24,
        b"workingset_refault_file": 25,
        b"workingset_refault_anon": 26,
    },
)
USAGE = Usage(
    at=9 * SECOND,
    cpu=Cpu(usage=5 * SECOND, user=3 * SECOND, system=2 * SECOND, periods=4),
    memory=MEMORY,
    cpu_pressure=PRESSURE,
    memory_pressure=PRESSURE,
    io_pressure=PRESSURE,
)
ETH0 = Interface(
    name="eth0", rx_bytes=1, rx_packets=2, rx_errors=3, rx_dropped=4, tx_bytes=5, tx_packets=6, tx_errors=7, tx_dropped=8
)
READING = Reading(
    at=9 * SECOND,
    labels=("main", "/pod/box", "image", "id", "ns", "pod"),
    usage=USAGE,
    details=Details(
        events=MemoryEvents(limit_hits=1, oom_kills=2, peak=150, high=31),
        tasks=4,
        io=(
            DeviceIo(
                major=8,
                minor=0,
                bytes={"read": 1024, "write": 20, "sync": 1},
                requests={"read": 1, "write": 2},
                cost={"usage": 3_000_000, "wait": 4_000_000, "indebt": 5_000_000, "indelay": 6_000_000},
                scheduler={
                    "merged": {"read": 41, "write": 42},
                    "time": {"read": 3 * SECOND, "write": 4 * SECOND, "total": 7 * SECOND},
                    "queued": {"total": 43},
                },
            ),
        ),
        huge_pages=(HugePages(size="2MB", usage=1, peak=2, failures=44),),
        migrates=1,
        numa=(NumaPages(kind="anon", scope="hierarchy", node="0", pages=51),),
    ),
    processes=Processes(processes=3, descriptors=9, sockets=2),
    layer=LayerUsage(at=1, used_bytes=77, inodes=3),
    file_system=FileSystem(device="/dev/sda1", size=1000, inodes=100, inodes_free=50),
    limits=api_pb2.LinuxContainerResources(cpu_quota=5),
    started_at=4 * SECOND,
    open_files=1024,
    devices={(8, 0): "/dev/sda"},
    interfaces=(ETH0,),
    created_at=3 * SECOND,
    sockets=Sockets(
        tcp={"tcp": {"listen": 61}, "tcp6": {"listen": 62}},
        udp={"udp": Datagrams(dropped=63), "udp6": Datagrams(dropped=64)},
        advanced={"rtomin": 65},
    ),
    tasks=Tasks(running=71),
    load=Load(average=72, blocked=73),
    schedule=Schedule(run=5 * SECOND, waited=6 * SECOND, periods=74),
    referenced=75,
)
ALL = chosen(METRIC_KINDS)


def test_every_descriptor_has_a_value_with_its_labels() -> None:
    metrics = {metric.name: metric for metric in encode(READING, ALL)}
    known = descriptors(ALL)
    assert len({descriptor.name for descriptor in known}) == len(known)
    for descriptor in known:
        assert descriptor.help, descriptor.name
        assert len(metrics[descriptor.name].label_values) == len(descriptor.label_keys), descriptor.name
        assert tuple(descriptor.label_keys[: len(LABELS)]) == LABELS
    assert set(metrics) == {descriptor.name for descriptor in known}


def test_values() -> None:
    found = {(metric.name, *metric.label_values[len(LABELS) :]): metric.value.value for metric in encode(READING, ALL)}
    assert found["container_cpu_usage_seconds_total", "total"] == 5
    assert found["container_memory_working_set_bytes",] == 70
    assert found["container_fs_reads_bytes_total", "/dev/sda"] == 1024
    assert found["container_fs_sector_reads_total", "/dev/sda"] == 2
    assert found["container_fs_io_cost_indelay_seconds_total", "/dev/sda"] == 6
    assert found["container_memory_numa_pages", "anon", "hierarchy", "0"] == 51
    assert found["container_blkio_device_usage_total", "/dev/sda", "8", "0", "sync"] == 1
    assert found["container_fs_usage_bytes", "/dev/sda1"] == 77
    assert found["container_network_transmit_packets_dropped_total", "eth0"] == 8
    assert found["container_pressure_io_waiting_seconds_total",] == 3
    assert found["container_spec_cpu_period",] == 100_000
    assert found["container_start_time_seconds",] == 4
    assert found["container_memory_failures_total", "pgmajfault", "hierarchy"] == 2


def test_series_are_told_once() -> None:
    series = [(metric.name, *metric.label_values) for metric in encode(READING, ALL)]
    assert len(series) == len(set(series))


def test_what_is_not_known_is_left_out() -> None:
    names = {metric.name for metric in encode(Reading(at=SECOND, labels=("",) * len(LABELS)), ALL)}
    assert names == {"container_last_seen"}


def test_stats_without_limits_and_without_pressure() -> None:
    zeros = {name: 0 for name in MEMORY.__slots__ if "limit" not in name and name != "stat"}
    usage = Usage(at=5, cpu=Cpu(usage=1), memory=Memory(**zeros))
    message = messages.memory_usage(usage)
    assert message.HasField("working_set_bytes")
    assert not message.HasField("available_bytes")
    assert not message.HasField("psi")


def test_the_default_interface_is_cni_s() -> None:
    other = Interface(
        name="aaa0", rx_bytes=0, rx_packets=0, rx_errors=0, rx_dropped=0, tx_bytes=0, tx_packets=0, tx_errors=0, tx_dropped=0
    )
    usage = messages.network_usage(1, [other, ETH0])
    assert (usage.default_interface.name, [one.name for one in usage.interfaces]) == ("eth0", ["aaa0", "eth0"])
    assert messages.network_usage(1, [other]).default_interface.name == "aaa0"
    assert not messages.network_usage(1, []).HasField("default_interface")


def test_a_pod_without_interfaces_has_no_network_usage() -> None:
    """Kubelet 1.36 reads the default interface of any network usage, and ends where there is none."""
    usage = Usage(at=5, cpu=Cpu(usage=1), memory=Memory(**dict.fromkeys(MEMORY.__slots__, 0)))
    pod = SimpleNamespace(id="p", config=api_pb2.PodSandboxConfig())
    assert messages.pod_stats(pod, usage, None, [ETH0], 1).linux.network.HasField("default_interface")
    for none in (None, []):
        assert not messages.pod_stats(pod, usage, None, none, 1).linux.HasField("network")


def test_swap_and_each_pressure_have_their_place() -> None:
    def pressure(base: int) -> Pressure:
        some, full = (Stall(total=n, avg10=n + 1, avg60=n + 2, avg300=n + 3) for n in (base, base + 100))
        return Pressure(some=some, full=full)

    usage = dataclasses.replace(
        USAGE,
        memory=dataclasses.replace(MEMORY, swap=5, swap_limit=20),
        cpu_pressure=pressure(1000),
        memory_pressure=pressure(2000),
        io_pressure=pressure(3000),
    )
    container = SimpleNamespace(id="c", config=api_pb2.ContainerConfig())
    stats = messages.container_stats(container, usage, None, None, "/")
    assert (stats.swap.timestamp, stats.swap.swap_usage_bytes.value, stats.swap.swap_available_bytes.value) == (usage.at, 5, 15)
    pod = messages.pod_stats(SimpleNamespace(id="p", config=api_pb2.PodSandboxConfig()), usage, None, None, 1).linux
    for of in (stats, pod):
        for psi, base in ((of.cpu.psi, 1000), (of.memory.psi, 2000), (of.io.psi, 3000)):
            for found, first in ((psi.Some, base), (psi.Full, base + 100)):
                assert (found.Total, found.Avg10, found.Avg60, found.Avg300) == (first, first + 1, first + 2, first + 3)


def test_kinds_are_those_of_the_configuration() -> None:
    assert tuple(sorted(KINDS, key=str.lower)) == METRIC_KINDS
    assert len(chosen(())) < len(chosen(("tcp",))) < len(ALL)
