"""Limits that change: arithmetic, order, what is kept, what a refusal leaves."""

from __future__ import annotations

import asyncio
import json

import pytest

from shim.container.create import create_container
from shim.container.limits import added, merged
from shim.container.start import start_container
from shim.container.update import update_container_resources
from shim.errors import FailedPrecondition, InvalidArgument
from shim.gen.runtime.v1 import api_pb2
from shim.pod.run import run_pod_sandbox
from tests.unit.shim.fakes import container_config, pod_config

R = api_pb2.LinuxContainerResources


def test_what_is_not_asked_for_stays():
    old = R(cpu_quota=5, cpu_period=7, memory_limit_in_bytes=10, memory_swap_limit_in_bytes=20, oom_score_adj=3)
    new = merged(old, R(cpu_quota=-1, cpuset_cpus="0", oom_score_adj=9, unified={"memory.high": "1"}))
    assert (new.cpu_quota, new.cpu_period, new.cpuset_cpus, new.oom_score_adj) == (-1, 7, "0", 3)
    assert (new.memory_limit_in_bytes, new.memory_swap_limit_in_bytes, dict(new.unified)) == (10, 20, {"memory.high": "1"})


def test_a_new_memory_limit_takes_swap_along():
    old = R(memory_limit_in_bytes=10, memory_swap_limit_in_bytes=20)
    assert merged(old, R(memory_limit_in_bytes=30)).memory_swap_limit_in_bytes == 0
    assert merged(old, R(memory_limit_in_bytes=30, memory_swap_limit_in_bytes=40)).memory_swap_limit_in_bytes == 40


def test_huge_pages_change_by_size():
    pages = [api_pb2.HugepageLimit(page_size="2MB", limit=1), api_pb2.HugepageLimit(page_size="1GB", limit=2)]
    new = merged(R(hugepage_limits=pages), R(hugepage_limits=[api_pb2.HugepageLimit(page_size="2MB", limit=9)]))
    assert {one.page_size: one.limit for one in new.hugepage_limits} == {"2MB": 9, "1GB": 2}


def test_overhead_comes_on_top():
    total = added(
        R(cpu_quota=50_000, cpu_period=100_000, cpu_shares=100, memory_limit_in_bytes=10),
        R(cpu_quota=10_000, cpu_period=50_000, cpu_shares=5, memory_limit_in_bytes=3),
    )
    assert (total.cpu_quota, total.cpu_period, total.cpu_shares, total.memory_limit_in_bytes) == (70_000, 100_000, 105, 13)


@pytest.mark.parametrize("name", ["memory_limit_in_bytes", "cpu_shares", "cpu_quota"])
def test_a_sum_that_no_field_holds_is_refused(name):
    most = R(**{name: 2**63 - 1})
    with pytest.raises(InvalidArgument, match="64 bits"):
        added(most, most)


def test_overhead_alone_is_no_limit_and_no_limit_stays_none():
    total = added(R(memory_limit_in_bytes=-1), R(cpu_quota=10_000, memory_limit_in_bytes=3))
    assert (total.cpu_quota, total.memory_limit_in_bytes) == (0, -1)


@pytest.fixture
async def running(world):
    """Give a node, the monitor's orders and a running container."""
    node, _trace = world
    pod_id = await run_pod_sandbox(node, pod_config(), "")
    container_id = await create_container(node, pod_id, container_config())
    await start_container(node, container_id)
    orders = []

    async def update(which, resources):
        orders.append((which, resources))
        if resources.get("cpu", {}).get("quota") == 13:
            raise InvalidArgument("the kernel refuses 13")

    node.monitors.get(pod_id).update = update
    return node, orders, container_id


async def test_limits_reach_the_kernel_the_bundle_and_the_row(running):
    node, orders, container_id = running
    await update_container_resources(node, container_id, R(memory_limit_in_bytes=1 << 20), {"a": "b"})
    await update_container_resources(node, container_id, R(cpu_shares=7), {"c": "d"})
    assert orders[-1] == (container_id, {"cpu": {"shares": 7}, "memory": {"limit": 1 << 20}})
    with open(f"{node.container_dir(container_id)}/config.json", "rb") as file:
        config = json.load(file)
    assert config["linux"]["resources"]["memory"]["limit"] == 1 << 20
    assert config["linux"]["resources"]["cpu"]["shares"] == 7
    assert {"a": "b", "c": "d"}.items() <= config["annotations"].items()
    kept = node.containers.get(container_id).resources
    assert (kept.memory_limit_in_bytes, kept.cpu_shares) == (1 << 20, 7)


async def test_a_refusal_takes_back_what_was_written(running):
    node, orders, container_id = running
    await update_container_resources(node, container_id, R(cpu_quota=5000), {})
    with pytest.raises(InvalidArgument, match="refuses 13"):
        await update_container_resources(node, container_id, R(cpu_quota=13), {})
    assert [order["cpu"]["quota"] for _, order in orders] == [5000, 13, 5000]
    assert node.containers.get(container_id).resources.cpu_quota == 5000


async def test_updates_at_once_lose_nothing(running):
    node, _orders, container_id = running
    asked = [R(cpu_quota=5000), R(cpu_shares=9), R(memory_limit_in_bytes=1 << 20), R(cpuset_cpus="0")]
    await asyncio.gather(*(update_container_resources(node, container_id, one, {}) for one in asked))
    kept = node.containers.get(container_id).resources
    assert (kept.cpu_quota, kept.cpu_shares, kept.memory_limit_in_bytes, kept.cpuset_cpus) == (5000, 9, 1 << 20, "0")


async def test_bad_values_and_dead_containers(running):
    node, orders, container_id = running
    with pytest.raises(InvalidArgument, match="cpu_shares"):
        await update_container_resources(node, container_id, R(cpu_shares=-1), {})
    assert orders == []
    await node.monitors.get(node.containers.get(container_id).pod_id).exits(container_id, 0)
    with pytest.raises(FailedPrecondition, match="exited"):
        await update_container_resources(node, container_id, R(cpu_shares=5), {})


async def test_a_caller_that_goes_does_not_let_the_next_update_overtake(running):
    node, orders, container_id = running
    monitor = node.monitors.get(node.containers.get(container_id).pod_id)
    going, update = asyncio.Event(), monitor.update

    async def slowly(which, resources):
        await going.wait()
        await update(which, resources)

    monitor.update = slowly
    first = asyncio.ensure_future(update_container_resources(node, container_id, R(cpu_quota=13), {}))
    await asyncio.sleep(0)
    first.cancel()
    second = asyncio.ensure_future(update_container_resources(node, container_id, R(cpu_shares=9), {}))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not first.done()
    going.set()
    await asyncio.gather(first, second, return_exceptions=True)
    assert orders[0][1]["cpu"]["quota"] == 13
    assert orders[-1][1]["cpu"]["shares"] == 9
    assert node.containers.get(container_id).resources.cpu_quota == 0
