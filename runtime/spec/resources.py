"""linux.resources of config.json (runtime-spec 1.3, config-linux.md "Control groups") as frozen values.

None means "not asked for": nothing is written to the kernel. Sizes are bytes, times microseconds, unless said otherwise.
"""

from __future__ import annotations

from runtime.record import Record, replace


class DeviceRule(Record):
    """One entry of the device cgroup's list. `type` is a, b, c, u or p; no major or minor means any; access is of "rwm"."""

    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


class Memory(Record):
    """Memory limits in bytes; -1 is "no limit". `swap` is memory plus swap, as in cgroup v1."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = None
    swappiness: int | None = None
    disable_oom_killer: bool | None = None
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class Cpu(Record):
    """CPU shares, CFS bandwidth, real-time bandwidth (all microseconds) and the cpuset."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str = ""
    mems: str = ""
    idle: int | None = None


class WeightDevice(Record):
    """The I/O weight of one block device."""

    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class ThrottleDevice(Record):
    """A bandwidth (bytes a second) or operation (a second) limit of one block device."""

    major: int
    minor: int
    rate: int


class BlockIo(Record):
    """Block I/O weights and throttles."""

    weight: int | None = None
    leaf_weight: int | None = None
    weight_devices: tuple[WeightDevice, ...] = ()
    throttle_read_bps: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops: tuple[ThrottleDevice, ...] = ()
    throttle_write_iops: tuple[ThrottleDevice, ...] = ()


class HugepageLimit(Record):
    """A limit in bytes on one huge page size, spelled as the kernel does ("2MB", "1GB")."""

    page_size: str
    limit: int


class InterfacePriority(Record):
    """The net_prio priority of the traffic that leaves through one interface."""

    name: str
    priority: int


class Network(Record):
    """The net_cls class id and net_prio priorities (cgroup v1 only)."""

    class_id: int | None = None
    priorities: tuple[InterfacePriority, ...] = ()


class RdmaLimit(Record):
    """Limits on one RDMA device."""

    device: str
    hca_handles: int | None = None
    hca_objects: int | None = None


class Resources(Record):
    """Everything a container's cgroup is asked to enforce; the default asks for nothing."""

    devices: tuple[DeviceRule, ...] = ()
    memory: Memory = Memory()
    cpu: Cpu = Cpu()
    pids_limit: int | None = None
    block_io: BlockIo = BlockIo()
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    network: Network = Network()
    rdma: tuple[RdmaLimit, ...] = ()
    unified: tuple[tuple[str, str], ...] = ()


_BEFORE = ("0.", "1.0.", "1.1.", "1.2.")


def as_meant(resources: Resources, version: str) -> Resources:
    """Give resources as documents of that ociVersion mean them.

    Before 1.3 pids.limit had to be there, and 0 was how to ask for none: podman writes it for --pids-limit -1. Since then
    0 is a limit like any other, and an absent one asks for none.
    """
    if resources.pids_limit == 0 and version.startswith(_BEFORE):
        return replace(resources, pids_limit=None)
    return resources
