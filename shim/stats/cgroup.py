"""Read the files of one cgroup, on v1, hybrid and v2; a file that is not there is a value that is not there.

Each file is opened by path, read once and closed: 5 to 14 µs each (measured), so that no descriptor has to be kept, which
would hold a removed cgroup in the kernel's memory.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from runtime.apply.cgroup import detect
from runtime.plan.cgroup import UNIFIED, cgroup_paths
from shim.stats import parse
from shim.stats.values import Details, HugePages, MemoryEvents, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runtime.plan.cgroup import Layout
    from shim.stats.values import Cpu, DeviceIo, Memory, NumaPages, Pressure

TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
BFQ = {"merged": "io_merged", "time": "io_service_time", "queued": "io_queued"}
"""What v1's BFQ scheduler counts, where the kernel was built to (CONFIG_BFQ_CGROUP_DEBUG)."""
READ = 1 << 15
"""Bytes of one read; cgroup files give all they have at once."""


def read(path: str) -> bytes | None:
    """Give a file's content; None when it is not there, is empty by design (PSI switched off), or its cgroup is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, READ)
    except OSError:
        return None
    finally:
        os.close(fd)


class Groups:
    """Finds the directories of cgroups by their path in the hierarchies of this host."""

    def __init__(self, layout: Layout | None = None) -> None:
        self.layout = detect() if layout is None else layout

    def find(self, path: str) -> Group:
        """Give the cgroup at the absolute `path`."""
        return Group(dict(cgroup_paths(self.layout, path, "")), v2=self.layout.kind == "v2")


class Group:
    """One cgroup: a directory in each hierarchy."""

    __slots__ = ("_by_controller", "_v2", "unified")

    def __init__(self, directories: Mapping[str, str], *, v2: bool) -> None:
        self.unified = directories.get(UNIFIED, "")
        self._by_controller = {name: path for key, path in directories.items() if key for name in key.split(",")}
        self._v2 = v2

    def directory(self, controller: str) -> str:
        """Give the directory with a controller's files, "" when there is none."""
        return self._by_controller.get(controller, self.unified if self._v2 else "")

    @property
    def member_directory(self) -> str:
        """Give the directory in which members are listed."""
        return next((path for name in ("pids", "memory", "cpu") if (path := self.directory(name))), self.unified)

    def usage(self) -> Usage:
        """Give what the stats RPCs need."""
        return Usage(
            at=time.time_ns(),
            cpu=self.cpu(detailed=False),
            memory=self.memory(detailed=False),
            cpu_pressure=self._pressure("cpu"),
            memory_pressure=self._pressure("memory"),
            io_pressure=self._pressure("io"),
        )

    def detailed_usage(self) -> Usage:
        """Give the same with everything the metrics need beside it."""
        return Usage(
            at=time.time_ns(),
            cpu=self.cpu(detailed=True),
            memory=self.memory(detailed=True),
            cpu_pressure=self._pressure("cpu"),
            memory_pressure=self._pressure("memory"),
            io_pressure=self._pressure("io"),
        )

    def details(self, *, numa: bool = False) -> Details:
        """Give what only metrics tell; pages by memory node only if asked for."""
        limit = _number(f"{self.directory('pids')}/pids.max")
        return Details(
            events=self._events(),
            tasks=_number(f"{self.directory('pids')}/pids.current"),
            tasks_limit=limit or 0,
            io=self._io(),
            huge_pages=self._huge_pages(),
            migrates=None if self._v2 else _number(f"{self.directory('cpuset')}/cpuset.memory_migrate"),
            numa=self._numa() if numa else (),
        )

    def cpu(self, *, detailed: bool) -> Cpu | None:
        """Give processor time; on v1 only its sum unless `detailed`."""
        if self._v2:
            stat = read(f"{self.unified}/cpu.stat")
            return None if stat is None else parse.cpu_v2(parse.keyed(stat))
        folder = self.directory("cpuacct")
        usage = read(f"{folder}/cpuacct.usage") if folder else None
        if usage is None:
            return None
        if not detailed:
            return parse.cpu_v1(usage, {}, {}, TICK)
        split = parse.keyed(read(f"{folder}/cpuacct.stat") or b"")
        bandwidth = parse.keyed(read(f"{self.directory('cpu')}/cpu.stat") or b"")
        return parse.cpu_v1(usage, split, bandwidth, TICK)

    def memory(self, *, detailed: bool) -> Memory | None:
        """Give memory and swap; kernel memory on v1 only when `detailed`."""
        folder = self.directory("memory")
        usage = _number(f"{folder}/memory.current" if self._v2 else f"{folder}/memory.usage_in_bytes") if folder else None
        stat = read(f"{folder}/memory.stat")
        if usage is None or stat is None:
            return None
        if self._v2:
            swap = _number(f"{folder}/memory.swap.current") or 0
            swap_limit = _number(f"{folder}/memory.swap.max")
            return parse.memory_v2(usage, parse.keyed(stat), _number(f"{folder}/memory.max"), swap, swap_limit)
        kernel = (_number(f"{folder}/memory.kmem.usage_in_bytes") or 0) if detailed else 0
        return parse.memory_v1(usage, parse.keyed(stat), _number(f"{folder}/memory.limit_in_bytes"), kernel)

    def _pressure(self, resource: str) -> Pressure | None:
        text = read(f"{self.unified}/{resource}.pressure") if self.unified else None
        return parse.pressure(text) if text else None

    def _events(self) -> MemoryEvents | None:
        folder = self.directory("memory")
        if not folder:
            return None
        if self._v2:
            events = parse.keyed(read(f"{folder}/memory.events") or b"")
            return MemoryEvents(
                limit_hits=events.get(b"max", 0),
                oom_kills=events.get(b"oom_kill", 0),
                peak=_number(f"{folder}/memory.peak") or 0,
                reservation=_number(f"{folder}/memory.low"),
                high=events.get(b"high", 0),
            )
        control = parse.keyed(read(f"{folder}/memory.oom_control") or b"")
        return MemoryEvents(
            limit_hits=_number(f"{folder}/memory.failcnt") or 0,
            oom_kills=control.get(b"oom_kill", 0),
            peak=_number(f"{folder}/memory.max_usage_in_bytes") or 0,
            reservation=_number(f"{folder}/memory.soft_limit_in_bytes"),
        )

    def _io(self) -> tuple[DeviceIo, ...]:
        if self._v2:
            return parse.io_v2(read(f"{self.unified}/io.stat") or b"")
        stem = f"{self.directory('blkio')}/blkio.throttle."
        moved, asked = read(f"{stem}io_service_bytes_recursive"), read(f"{stem}io_serviced_recursive")
        folder = f"{self.directory('blkio')}/blkio.bfq."
        files = {key: read(f"{folder}{name}_recursive") for key, name in BFQ.items()} if moved else {}
        return parse.io_v1(moved or b"", asked or b"", {key: text for key, text in files.items() if text})

    def _numa(self) -> tuple[NumaPages, ...]:
        text = read(f"{self.directory('memory')}/memory.numa_stat") or b""
        return parse.numa_v2(text, os.sysconf("SC_PAGE_SIZE")) if self._v2 else parse.numa_v1(text)

    def _huge_pages(self) -> tuple[HugePages, ...]:
        folder = self.directory("hugetlb") or self.unified  # a hybrid host may have it there
        v2 = folder == self.unified
        ending = ".current" if v2 else ".usage_in_bytes"
        try:
            names = os.listdir(folder) if folder else []
        except OSError:
            return ()
        pages = []
        for name in sorted(names):
            size, dot, _ = name.removeprefix("hugetlb.").partition(".")
            if not dot or name != f"hugetlb.{size}{ending}":
                continue
            usage = _number(f"{folder}/{name}") or 0
            peak = usage if v2 else _number(f"{folder}/hugetlb.{size}.max_usage_in_bytes") or 0
            pages.append(
                HugePages(size=size, usage=usage, peak=peak, failures=_huge_failures(f"{folder}/hugetlb.{size}", v2=v2))
            )
        return tuple(pages)


def _huge_failures(stem: str, *, v2: bool) -> int:
    if v2:
        return parse.keyed(read(f"{stem}.events") or b"").get(b"max", 0)
    return _number(f"{stem}.failcnt") or 0


def _number(path: str) -> int | None:
    text = read(path)
    return None if not text else parse.number(text)
