"""The CRI's stats messages of what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shim.stats.values import Interface, LayerUsage, Memory, Pressure, Stall, Usage
    from shim.store.containers import Container
    from shim.store.pods import Pod

DEFAULT_INTERFACE = "eth0"
"""Name CNI gives the pod's interface."""


def number(value: int | None) -> api_pb2.UInt64Value | None:
    """Wrap a number; None leaves the field out."""
    return None if value is None else api_pb2.UInt64Value(value=value)


def container_stats(
    container: Container, usage: Usage | None, rate: int | None, layer: LayerUsage | None, mountpoint: str
) -> api_pb2.ContainerStats:
    """Give ContainerStats; `usage` is None for a container that does not live, `rate` in nanoseconds a second."""
    config = container.config
    stats = api_pb2.ContainerStats(
        attributes=api_pb2.ContainerAttributes(
            id=container.id, metadata=config.metadata, labels=config.labels, annotations=config.annotations
        )
    )
    if usage is not None:
        stats.cpu.CopyFrom(cpu_usage(usage, rate))
        memory = usage.memory
        stats.memory.CopyFrom(memory_usage(usage))
        if memory is not None:
            stats.swap.timestamp = usage.at
            stats.swap.swap_usage_bytes.value = memory.swap
            if memory.swap_available is not None:
                stats.swap.swap_available_bytes.value = memory.swap_available
        if usage.io_pressure is not None:
            stats.io.CopyFrom(io_usage(usage))
    if layer is not None:
        stats.writable_layer.timestamp = layer.at
        stats.writable_layer.fs_id.mountpoint = mountpoint
        stats.writable_layer.used_bytes.value = layer.used_bytes
        stats.writable_layer.inodes_used.value = layer.inodes
    return stats


def cpu_usage(usage: Usage, rate: int | None) -> api_pb2.CpuUsage:
    """Give CpuUsage."""
    return api_pb2.CpuUsage(
        timestamp=usage.at,
        usage_core_nano_seconds=number(None if usage.cpu is None else usage.cpu.usage),
        usage_nano_cores=number(rate),
        psi=psi(usage.cpu_pressure),
    )


def memory_usage(usage: Usage) -> api_pb2.MemoryUsage:
    """Give MemoryUsage."""
    message = api_pb2.MemoryUsage(timestamp=usage.at, psi=psi(usage.memory_pressure))
    if usage.memory is not None:
        _fill_memory(message, usage.memory)
    return message


def _fill_memory(message: api_pb2.MemoryUsage, memory: Memory) -> None:
    message.working_set_bytes.value = memory.working_set
    message.usage_bytes.value = memory.usage
    message.rss_bytes.value = memory.rss
    message.page_faults.value = memory.page_faults
    message.major_page_faults.value = memory.major_page_faults
    if memory.available is not None:
        message.available_bytes.value = memory.available


def io_usage(usage: Usage) -> api_pb2.IoUsage:
    """Give IoUsage."""
    return api_pb2.IoUsage(timestamp=usage.at, psi=psi(usage.io_pressure))


def psi(pressure: Pressure | None) -> api_pb2.PsiStats | None:
    """Give PsiStats; None leaves the field out."""
    if pressure is None:
        return None
    return api_pb2.PsiStats(Full=_psi_data(pressure.full), Some=_psi_data(pressure.some))


def _psi_data(stall: Stall) -> api_pb2.PsiData:
    return api_pb2.PsiData(Total=stall.total, Avg10=stall.avg10, Avg60=stall.avg60, Avg300=stall.avg300)


def pod_stats(
    pod: Pod, usage: Usage, rate: int | None, network: Sequence[Interface] | None, processes: int
) -> api_pb2.PodSandboxStats:
    """Give PodSandboxStats without its containers; `network` is None in a pod that uses the node's.

    Where there is no interface (the pod is being stopped, its plugins made none) the network's usage is left out: kubelet reads
    the default interface without looking whether there is one, and would end with it.
    """
    config = pod.config
    linux = api_pb2.LinuxPodSandboxStats(
        cpu=cpu_usage(usage, rate),
        memory=memory_usage(usage),
        process=api_pb2.ProcessUsage(timestamp=usage.at, process_count=number(processes)),
    )
    if usage.io_pressure is not None:
        linux.io.CopyFrom(io_usage(usage))
    if network:
        linux.network.CopyFrom(network_usage(usage.at, network))
    return api_pb2.PodSandboxStats(
        attributes=api_pb2.PodSandboxAttributes(
            id=pod.id, metadata=config.metadata, labels=config.labels, annotations=config.annotations
        ),
        linux=linux,
    )


def network_usage(at: int, interfaces: Sequence[Interface]) -> api_pb2.NetworkUsage:
    """Give NetworkUsage with all interfaces, and CNI's own (else the first) as the default one."""
    entries = [
        api_pb2.NetworkInterfaceUsage(
            name=one.name,
            rx_bytes=number(one.rx_bytes),
            rx_errors=number(one.rx_errors),
            tx_bytes=number(one.tx_bytes),
            tx_errors=number(one.tx_errors),
        )
        for one in interfaces
    ]
    default = next((entry for entry in entries if entry.name == DEFAULT_INTERFACE), entries[0] if entries else None)
    return api_pb2.NetworkUsage(timestamp=at, default_interface=default, interfaces=entries)
