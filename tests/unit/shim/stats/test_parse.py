"""Contents of kernel files, of v1 and v2, as values."""

from __future__ import annotations

import pytest

from shim.stats import parse
from shim.stats.values import Interface

V1_MEMORY_STAT = b"""\
cache 10
rss 20
total_cache 8192
total_rss 4096
total_mapped_file 512
total_pgfault 77
total_pgmajfault 3
total_swap 64
total_inactive_file 1024
total_active_file 2048
hierarchical_memory_limit 65536
hierarchical_memsw_limit 98304
"""
V2_MEMORY_STAT = b"""\
anon 4096
file 8192
kernel 300
kernel_stack 100
file_mapped 512
inactive_file 1024
active_file 2048
pgfault 77
pgmajfault 3
"""


@pytest.mark.parametrize(
    ("text", "value"),
    [(b"42\n", 42), (b"max\n", None), (b"9223372036854771712\n", None), (b"18446744073709551615\n", None), (b"0\n", 0)],
)
def test_number(text: bytes, value: int | None) -> None:
    assert parse.number(text) == value


def test_memory_v1() -> None:
    memory = parse.memory_v1(10_000, parse.keyed(V1_MEMORY_STAT), 65536, 5)
    assert (memory.usage, memory.rss, memory.cache, memory.mapped_file, memory.kernel) == (10_000, 4096, 8192, 512, 5)
    assert (memory.page_faults, memory.major_page_faults) == (77, 3)
    assert memory.working_set == 10_000 - 1024
    assert memory.available == 65536 - memory.working_set
    assert (memory.swap, memory.swap_limit, memory.swap_available) == (64, 98304 - 65536, 98304 - 65536 - 64)


def test_memory_v1_without_swap_accounting() -> None:
    memory = parse.memory_v1(10, {b"total_inactive_file": 20}, None)
    assert (memory.working_set, memory.available, memory.swap_limit, memory.swap_available) == (0, None, None, None)


def test_memory_v2() -> None:
    memory = parse.memory_v2(10_000, parse.keyed(V2_MEMORY_STAT), None, 64, 100)
    assert (memory.rss, memory.cache, memory.mapped_file, memory.kernel) == (4096, 8192, 512, 300)
    assert (memory.working_set, memory.available, memory.swap_available) == (8976, None, 36)


def test_kernel_memory_of_older_v2_is_the_sum_of_its_parts() -> None:
    stat = {b"kernel_stack": 1, b"pagetables": 2, b"percpu": 4, b"slab": 8}
    assert parse.memory_v2(0, stat, None, 0, None).kernel == 15


def test_cpu_v1() -> None:
    bandwidth = parse.keyed(b"nr_periods 9\nnr_throttled 4\nthrottled_time 5000\nnr_bursts 1\nburst_time 7\n")
    cpu = parse.cpu_v1(b"123456789\n", parse.keyed(b"user 3\nsystem 4\n"), bandwidth, 10_000_000)
    assert (cpu.usage, cpu.user, cpu.system) == (123456789, 30_000_000, 40_000_000)
    assert (cpu.periods, cpu.throttled_periods, cpu.throttled, cpu.bursts, cpu.burst) == (9, 4, 5000, 1, 7)


def test_cpu_v2() -> None:
    text = b"usage_usec 10\nuser_usec 6\nsystem_usec 4\nnr_periods 9\nthrottled_usec 5\nburst_usec 2\n"
    cpu = parse.cpu_v2(parse.keyed(text))
    assert (cpu.usage, cpu.user, cpu.system, cpu.throttled, cpu.burst) == (10_000, 6_000, 4_000, 5_000, 2_000)


def test_pressure() -> None:
    pressure = parse.pressure(
        b"some avg10=4.26 avg60=2.12 avg300=7.19 total=383370295\nfull avg10=0.00 avg60=0.50 avg300=0.00 total=9\n"
    )
    assert pressure is not None
    assert (pressure.some.total, pressure.some.avg10, pressure.some.avg300) == (383370295, 4.26, 7.19)
    assert (pressure.full.total, pressure.full.avg60) == (9, 0.5)


def test_pressure_of_older_kernels_and_of_none() -> None:
    pressure = parse.pressure(b"some avg10=1.00 avg60=0.00 avg300=0.00 total=1\n")
    assert pressure is not None
    assert pressure.full.total == 0
    assert parse.pressure(b"") is None


def test_io_v1() -> None:
    moved = b"254:0 Read 100\n254:0 Write 7\n254:0 Sync 1\n254:0 Total 107\n8:16 Read 1\nTotal 108\n"
    asked = b"254:0 Read 3\n254:0 Write 1\nTotal 4\n"
    disk, other = parse.io_v1(moved, asked, {"merged": b"254:0 Read 5\nTotal 5\n"})
    assert (disk.major, disk.minor, disk.bytes["read"], disk.bytes["sync"]) == (254, 0, 100, 1)
    assert disk.requests == {"read": 3, "write": 1}
    assert (disk.scheduler, other.scheduler) == ({"merged": {"read": 5}}, {})
    assert (other.major, other.minor, other.requests) == (8, 16, {})
    assert parse.io_v1(b"Total 0\n", b"", {}) == ()


def test_io_v2() -> None:
    (disk,) = parse.io_v2(b"8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n9:1 \n")
    assert disk.bytes == {"read": 1, "write": 2, "discard": 5}
    assert disk.requests == {"read": 3, "write": 4, "discard": 6}
    assert disk.cost == {}
    (costly,) = parse.io_v2(b"8:0 rbytes=1 cost.vrate=100.00 cost.usage=7 cost.wait=8 cost.indebt=9 cost.indelay=10\n")
    assert costly.cost == {"usage": 7, "wait": 8, "indebt": 9, "indelay": 10}


def test_numa() -> None:
    v1 = b"total=4 N0=4\nfile=1 N0=1 N1=5\nanon=3 N0=3\nhierarchical_total=8 N0=8\nhierarchical_anon=6 N0=6\n"
    assert [(one.kind, one.scope, one.node, one.pages) for one in parse.numa_v1(v1)] == [
        ("file", "container", "0", 1),
        ("file", "container", "1", 5),
        ("anon", "container", "0", 3),
        ("anon", "hierarchy", "0", 6),
    ]
    (page,) = parse.numa_v2(b"anon N0=8192\nkernel_stack N0=16384\n", 4096)
    assert (page.kind, page.scope, page.node, page.pages) == ("anon", "hierarchy", "0", 2)


def test_net_dev() -> None:
    text = b"""\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    1480      12    1    2    0     0          0         0      306       3    4    5    0     0       0          0
eth0:1:      10       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
"""
    first, second = parse.net_dev(text)
    assert first == Interface(
        name="eth0",
        rx_bytes=1480,
        rx_packets=12,
        rx_errors=1,
        rx_dropped=2,
        tx_bytes=306,
        tx_packets=3,
        tx_errors=4,
        tx_dropped=5,
    )
    assert second.name == "eth0:1"
