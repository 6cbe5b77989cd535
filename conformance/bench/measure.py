"""The measurements. Each takes all targets and goes around them again and again, so that the machine's moods hit all alike."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import grpc

from conformance.bench import memory
from shim.gen.runtime.v1 import api_pb2
from tests.support.images import files_layer, random_layer
from tests.support.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conformance.bench.target import Target
    from tests.support.images import Layer

LINE_BYTES = 71
FILE_LINES = 200_000
LINES_FILE = "bench/lines"
IDLE_SETTLE = 6.0
"""Seconds after which a daemon without work counts as idle: helpers kept for the next call have ended, on every side."""


@dataclass(slots=True, kw_only=True)
class Results:
    """Figures by step and target, and what went wrong."""

    figures: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    spread: dict[str, dict[str, tuple[float, float]]] = field(default_factory=lambda: defaultdict(dict))
    notes: list[str] = field(default_factory=list)

    def add(self, key: str, target: str, samples: list[float]) -> None:
        """Keep the median of some samples, and how far they lie apart."""
        if samples:
            self.figures[key][target] = median(samples)
            self.spread[key][target] = (min(samples), max(samples))

    def failed(self, key: str, target: str, error: BaseException) -> None:
        """Keep why a figure is missing."""
        reason = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else f"{error}"
        self.notes.append(f"{key} on {target}: {reason[:300]}")


def milliseconds(action: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000


def rounds(
    results: Results, targets: list[Target], count: int, sample: Callable[[Target], dict[str, float]], *, key: str
) -> None:
    """Take `count` samples of every target in turn; a target that fails once is left out from then on."""
    samples: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    alive = list(targets)
    for _round in range(count):
        for target in list(alive):
            try:
                for name, value in sample(target).items():
                    samples[target.name][name].append(value)
            except (grpc.RpcError, OSError, RuntimeError, TimeoutError, KeyError, AssertionError) as error:
                results.failed(key, target.name, error)
                alive.remove(target)
    for target_name, figures in samples.items():
        for name, values in figures.items():
            results.add(name, target_name, values)


def pods(results: Results, targets: list[Target], count: int) -> None:
    """One pod after the other: start, and stop with removal."""

    def sample(target: Target) -> dict[str, float]:
        made = []
        start = milliseconds(lambda: made.append(target.start_pod()))
        stop = milliseconds(lambda: target.remove_pod(made[0]))
        return {"pod_start": start, "pod_stop": stop}

    for target in targets:  # the first pod of a daemon also makes its bridge
        _quietly(results, "pod_start", target, partial(_one_pod, target))
    rounds(results, targets, count, sample, key="pod_start")


def _quietly(results: Results, key: str, target: Target, action: Callable[[], object]) -> None:
    try:
        action()
    except (grpc.RpcError, OSError, RuntimeError, TimeoutError, KeyError, AssertionError) as error:
        results.failed(key, target.name, error)


def parallel(results: Results, targets: list[Target], count: int) -> None:
    """Many pods, eight at once."""

    def sample(target: Target) -> dict[str, float]:
        made: list[Any] = []
        seconds = milliseconds(lambda: made.extend(target.start_pods(count))) / 1000
        target.remove_pods(made)
        return {"pods_per_second": count / seconds}

    rounds(results, targets, 3, sample, key="pods_per_second")


def execs(results: Results, targets: list[Target], count: int) -> None:
    """ExecSync of true."""
    running = {target.name: target.start_pod() for target in targets}

    def sample(target: Target) -> dict[str, float]:
        container = running[target.name].container
        return {"exec": milliseconds(lambda: _true(target, container))}

    rounds(results, targets, count, sample, key="exec")
    for target in targets:
        target.remove_pod(running[target.name])


def _true(target: Target, container: str) -> None:
    if target.cri.execute(container, "true").exit_code != 0:
        raise RuntimeError("true did not end with 0")


def _one_pod(target: Target) -> None:
    target.remove_pod(target.start_pod())


def density(results: Results, targets: list[Target], count: int) -> None:
    """Memory without pods and with many, and lists meanwhile."""
    for target in targets:
        _quietly(results, "memory_idle", target, partial(_density, results, target, count))


def _density(results: Results, target: Target, count: int) -> None:
    time.sleep(IDLE_SETTLE)
    idle = memory.pss(target.own_pids())
    results.add("memory_idle", target.name, [idle])
    made = target.start_pods(count)
    time.sleep(IDLE_SETTLE)
    full = memory.pss(target.own_pids())
    results.add("memory_pod", target.name, [(full - idle) / count])
    calls: dict[str, Callable[[], object]] = {
        "list_containers": target.cri.containers,
        "list_pods": target.cri.pods,
        "status": lambda: target.cri.status(made[0].container),
        "list_stats": lambda: target.cri.runtime.ListContainerStats(api_pb2.ListContainerStatsRequest(), timeout=30),
    }
    for key, call in calls.items():
        _quietly(results, key, target, partial(_calls, results, key, target, call))
    target.remove_pods(made)


def _calls(results: Results, key: str, target: Target, call: Callable[[], object]) -> None:
    results.add(key, target.name, [milliseconds(call) for _ in range(50)])


def lines_layer() -> Layer:
    """Make the layer that holds the file of lines which log containers write out."""
    text = "".join(f"{number:09d} {'x' * (LINE_BYTES - 11)}\n" for number in range(FILE_LINES))
    return files_layer({LINES_FILE: text})


def logs(results: Results, targets: list[Target], copies: int) -> None:
    """Many short lines through a pipe into the log file; every one must be there, in order."""
    command = ["cat", *[f"/{LINES_FILE}"] * copies]

    def sample(target: Target) -> dict[str, float]:
        made = target.start_pod(["sh", "-c", f"until [ -e /tmp/go ]; do usleep 1000; done; exec {' '.join(command)}"])
        pid = target.cri.info(made.container)["pid"]
        started = time.time()
        with open(f"/proc/{pid}/root/tmp/go", "wb"):
            pass
        status = target.cri.wait_exit(made.container, seconds=120)
        ended = _check_log(status.log_path, copies * FILE_LINES)
        target.remove_pod(made)
        return {"logs": copies * FILE_LINES * LINE_BYTES / (ended - started) / 1e6}

    rounds(results, targets, 2, sample, key="logs")


def _check_log(path: str, expected: int) -> float:
    """Give the time of the last write (seconds); raise RuntimeError when a line is missing or out of order."""
    count = 0
    with open(path, "rb") as file:
        for count, line in enumerate(file, 1):
            text = line.partition(b" stdout F ")[2]
            if len(text) != LINE_BYTES or int(text[:9]) != (count - 1) % FILE_LINES:
                raise RuntimeError(f"line {count} of the log is {line[:60]!r}")
    if count != expected:
        raise RuntimeError(f"the log has {count} lines instead of {expected}")
    return os.stat(path).st_mtime


def pulls(results: Results, targets: list[Target], folder: Path, count: int) -> None:
    """Pull images nobody has seen, from a registry on loopback; their layers are unpacked when the call returns."""
    from tests.support.images import TestImage

    registry = Registry(folder / "registry").start()
    try:
        names = []
        for number in range(count):
            layers = tuple(random_layer(15, seed=f"{number}/{part}") for part in range(4))
            names.append(registry.push("bench/cold", str(number), TestImage(layers=layers)))
        waiting = {target.name: list(names) for target in targets}

        def sample(target: Target) -> dict[str, float]:
            name = waiting[target.name].pop()
            os.sync()
            took = milliseconds(lambda: target.cri.pull(name))
            target.cri.remove_image(name)
            return {"pull": took}

        rounds(results, targets, count, sample, key="pull")
    finally:
        registry.stop()
