"""What is written for linux.resources on each layout."""

from __future__ import annotations

import pytest

from runtime.errors import CgroupFault, KernelFault
from runtime.plan.cgroup import Hierarchy, Layout, resource_writes
from runtime.plan.cgroup_v2 import weight_of_shares
from runtime.spec.resources import (
    BlockIo,
    Cpu,
    HugepageLimit,
    InterfacePriority,
    Memory,
    Network,
    RdmaLimit,
    Resources,
    ThrottleDevice,
    WeightDevice,
)

V1_NAMES = ("cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "rdma", "net_cls", "net_prio")
V1 = Layout(hierarchies=tuple(Hierarchy(key=name, mount=f"/c/{name}", controllers=(name,), own="/") for name in V1_NAMES))
V2 = Layout(
    hierarchies=(
        Hierarchy(key="", mount="/c", controllers=("cpu", "cpuset", "memory", "pids", "io", "hugetlb", "rdma"), own="/"),
    )
)
HYBRID = Layout(hierarchies=(*V1.hierarchies[:5], Hierarchy(key="", mount="/c/u", controllers=("hugetlb",), own="/")))


def written(resources: Resources, layout: Layout) -> list[tuple[str, str]]:
    """Give the first choice of every write, in order."""
    return [write.choices[0] for write in resource_writes(resources, layout)]


@pytest.mark.parametrize("layout", [V1, V2, HYBRID, Layout()])
def test_nothing_asked_nothing_written(layout: Layout) -> None:
    assert written(Resources(), layout) == []


@pytest.mark.parametrize(
    ("resources", "v1", "v2"),
    [
        (Resources(pids_limit=5), [("pids.max", "5")], [("pids.max", "5")]),
        (Resources(pids_limit=-1), [("pids.max", "max")], [("pids.max", "max")]),
        (Resources(pids_limit=0), [("pids.max", "1")], [("pids.max", "1")]),
        (
            Resources(memory=Memory(limit=100, swap=300, reservation=50)),
            [
                ("memory.limit_in_bytes", "100"),
                ("memory.memsw.limit_in_bytes", "300"),
                ("memory.soft_limit_in_bytes", "50"),
            ],
            [("memory.swap.max", "200"), ("memory.max", "100"), ("memory.low", "50")],
        ),
        (
            Resources(memory=Memory(limit=-1)),
            [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")],
            [("memory.swap.max", "max"), ("memory.max", "max")],
        ),
        (
            Resources(cpu=Cpu(shares=1024, quota=50, period=100, burst=10, idle=0)),
            [
                ("cpu.idle", "0"),
                ("cpu.shares", "1024"),
                ("cpu.cfs_period_us", "100"),
                ("cpu.cfs_burst_us", "10"),
                ("cpu.cfs_quota_us", "50"),
            ],
            [("cpu.idle", "0"), ("cpu.weight", "100"), ("cpu.max.burst", "10"), ("cpu.max", "50 100")],
        ),
        (Resources(cpu=Cpu(shares=1024, idle=1)), [("cpu.idle", "1")], [("cpu.idle", "1")]),
        (Resources(cpu=Cpu(quota=-1)), [("cpu.cfs_quota_us", "-1")], [("cpu.max", "max")]),
        (
            Resources(cpu=Cpu(cpus="0-1", mems="0")),
            [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
            [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
        ),
        (
            Resources(block_io=BlockIo(weight=100, weight_devices=(WeightDevice(major=8, minor=0, weight=20),))),
            [("blkio.weight", "100"), ("blkio.weight_device", "8:0 20")],
            [("io.bfq.weight", "100"), ("io.bfq.weight", "8:0 20")],
        ),
        (
            Resources(block_io=BlockIo(throttle_read_bps=(ThrottleDevice(major=8, minor=1, rate=7),))),
            [("blkio.throttle.read_bps_device", "8:1 7")],
            [("io.max", "8:1 rbps=7")],
        ),
        (
            Resources(hugepage_limits=(HugepageLimit(page_size="2MB", limit=4),)),
            [("hugetlb.2MB.limit_in_bytes", "4"), ("hugetlb.2MB.rsvd.limit_in_bytes", "4")],
            [("hugetlb.2MB.max", "4"), ("hugetlb.2MB.rsvd.max", "4")],
        ),
        (
            Resources(rdma=(RdmaLimit(device="mlx", hca_handles=1, hca_objects=2),)),
            [("rdma.max", "mlx hca_handle=1 hca_object=2")],
            [("rdma.max", "mlx hca_handle=1 hca_object=2")],
        ),
    ],
)
def test_both_versions(resources: Resources, v1: list[tuple[str, str]], v2: list[tuple[str, str]]) -> None:
    assert written(resources, V1) == v1
    assert written(resources, V2) == v2


def test_v1_alone_has_network_and_swappiness() -> None:
    resources = Resources(
        network=Network(class_id=7, priorities=(InterfacePriority(name="eth0", priority=3),)), memory=Memory(swappiness=0)
    )
    assert written(resources, V1) == [
        ("memory.swappiness", "0"),
        ("net_cls.classid", "7"),
        ("net_prio.ifpriomap", "eth0 3"),
    ]
    with pytest.raises(KernelFault, match="cgroup v2 has no net_cls"):
        written(Resources(network=Network(class_id=7)), V2)
    with pytest.raises(KernelFault, match="swappiness"):
        written(Resources(memory=Memory(swappiness=10)), V2)


def test_hybrid_takes_each_controller_where_it_is() -> None:
    resources = Resources(memory=Memory(limit=5, swappiness=3), hugepage_limits=(HugepageLimit(page_size="2MB", limit=4),))
    assert written(resources, HYBRID) == [
        ("memory.limit_in_bytes", "5"),
        ("memory.swappiness", "3"),
        ("hugetlb.2MB.max", "4"),
        ("hugetlb.2MB.rsvd.max", "4"),
    ]


def test_unified_comes_last_line_by_line() -> None:
    resources = Resources(pids_limit=1, unified=(("pids.max", "9"), ("cgroup.max.depth", "3"), ("io.max", "a\nb")))
    assert written(resources, V2) == [
        ("pids.max", "1"),
        ("pids.max", "9"),
        ("cgroup.max.depth", "3"),
        ("io.max", "a"),
        ("io.max", "b"),
    ]
    with pytest.raises(KernelFault, match="no cgroup v2 controller memory"):
        written(Resources(unified=(("memory.high", "1"),)), HYBRID)


@pytest.mark.parametrize("layout", [Layout(), Layout(hierarchies=V1.hierarchies[:1])])
def test_limit_on_a_missing_controller_is_named(layout: Layout) -> None:
    with pytest.raises(KernelFault, match="no cgroup controller memory") as caught:
        resource_writes(Resources(memory=Memory(limit=5)), layout)
    assert caught.value.feature == "cgroup controller memory"


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 100), (262144, 10000)])
def test_weight_meets_shares_at_the_ends_and_the_default(shares: int, weight: int) -> None:
    assert weight_of_shares(shares) == weight


def test_weight_never_falls() -> None:
    weights = [weight_of_shares(shares) for shares in range(2, 262145, 97)]
    assert weights == sorted(weights)


@pytest.mark.parametrize("layout", [V1, V2])
@pytest.mark.parametrize("shares", [1, 262145])
def test_shares_out_of_range(layout: Layout, shares: int) -> None:
    with pytest.raises(CgroupFault, match="are not between 2 and 262144"):
        resource_writes(Resources(cpu=Cpu(shares=shares)), layout)


def test_what_bounds_each_other_may_be_postponed() -> None:
    first, second = resource_writes(Resources(memory=Memory(limit=100, swap=300)), V1)
    assert first.postponable
    assert not second.postponable
