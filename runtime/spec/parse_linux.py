"""Parse the linux part of config.json (config-linux.md of runtime-spec 1.3) except resources and seccomp."""

from __future__ import annotations

from runtime.spec.lasting import MemoryPolicy, Personality
from runtime.spec.model import Device, IdMapping, IntelRdt, Linux, Namespace, NetDevice, TimeOffset
from runtime.spec.parse_resources import parse_resources
from runtime.spec.parse_seccomp import parse_seccomp
from runtime.spec.reader import I64, U32, Reader
from runtime.spec.resources import Resources


def parse_linux(at: Reader) -> Linux:
    """Read /linux."""
    return Linux(
        namespaces=at.each("namespaces", _namespace),
        uid_mappings=at.each("uidMappings", parse_id_mapping),
        gid_mappings=at.each("gidMappings", parse_id_mapping),
        time_offsets=_time_offsets(at),
        devices=at.each("devices", _device),
        net_devices=_net_devices(at),
        cgroups_path=at.text("cgroupsPath"),
        resources=at.part("resources", parse_resources, Resources()),
        rootfs_propagation=at.text("rootfsPropagation"),
        seccomp=at.maybe("seccomp", parse_seccomp),
        masked_paths=at.texts("maskedPaths"),
        readonly_paths=at.texts("readonlyPaths"),
        mount_label=at.text("mountLabel"),
        personality=at.maybe("personality", _personality),
        intel_rdt=at.maybe("intelRdt", _intel_rdt),
        memory_policy=at.maybe("memoryPolicy", _memory_policy),
        sysctl=at.pairs("sysctl"),
    )


def parse_id_mapping(at: Reader) -> IdMapping:
    """Read one line of an id map."""
    size = at.need_integer("size", U32)
    if size == 0:
        raise at.fault("must be at least 1", "size")
    container_id = at.number("containerID", U32)
    host_id = at.number("hostID", U32)
    for key, first in (("containerID", container_id), ("hostID", host_id)):
        if first + size > 1 << 32:
            raise at.fault(f"{first} with {size} ids goes past the last id", key)
    return IdMapping(container_id=container_id, host_id=host_id, size=size)


def _namespace(at: Reader) -> Namespace:
    return Namespace(type=at.need_text("type"), path=at.text("path"))


def _time_offsets(at: Reader) -> tuple[TimeOffset, ...]:
    clocks = at.child("timeOffsets")
    if clocks is None:
        return ()
    offsets = []
    for clock in clocks.value:
        offset = clocks.child(clock)
        if offset is not None:
            secs, nanosecs = offset.number("secs", I64), offset.number("nanosecs", (0, 999_999_999))
            offsets.append(TimeOffset(clock=clock, secs=secs, nanosecs=nanosecs))
    return tuple(offsets)


def _device(at: Reader) -> Device:
    mode = at.integer("fileMode", U32)
    return Device(
        type=at.need_text("type"),
        path=at.need_text("path"),
        major=at.number("major", I64),
        minor=at.number("minor", I64),
        file_mode=None if mode is None else mode & 0o7777,
        uid=at.integer("uid", U32),
        gid=at.integer("gid", U32),
    )


def _net_devices(at: Reader) -> tuple[NetDevice, ...]:
    devices = at.child("netDevices")
    if devices is None:
        return ()
    return tuple(
        NetDevice(host_name=host_name, name=devices.part(host_name, lambda device: device.text("name"), ""))
        for host_name in devices.value
    )


def _personality(at: Reader) -> Personality:
    return Personality(domain=at.need_text("domain"), flags=at.texts("flags"))


def _intel_rdt(at: Reader) -> IntelRdt:
    return IntelRdt(
        clos_id=at.text("closID"),
        l3_cache_schema=at.text("l3CacheSchema"),
        mem_bw_schema=at.text("memBwSchema"),
        schemata=at.texts("schemata"),
        enable_monitoring=at.flag("enableMonitoring"),
    )


def _memory_policy(at: Reader) -> MemoryPolicy:
    return MemoryPolicy(mode=at.text("mode"), nodes=at.text("nodes"), flags=at.texts("flags"))
