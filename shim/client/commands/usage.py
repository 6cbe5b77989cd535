"""stats, events: what containers use, and what happens to them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import click

from shim.client import find
from shim.client.context import connected, output_option
from shim.client.output import as_dict, print_json, print_table, short, size
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.client.connection import Connection


@click.command()
@click.argument("names", nargs=-1)
@click.option(
    "-s", "--seconds", type=click.FloatRange(0.1), default=1.0, show_default=True, help="How long the CPU is watched."
)
@output_option
@connected
def stats(connection: Connection, names: tuple[str, ...], seconds: float, output: str) -> None:
    """Show what containers use: all that run, or those named."""
    wanted = {find.find_container(connection, name).id for name in names}
    before = {item.attributes.id: item for item in _stats(connection)}
    threading.Event().wait(seconds)  # a rate needs two moments; nothing sets it
    found = [item for item in _stats(connection) if not wanted or item.attributes.id in wanted]
    if output == "json":
        print_json([as_dict(item) for item in found])
        return
    rows = [
        (
            short(item.attributes.id),
            item.attributes.metadata.name,
            _cpu(before, item),
            size(item.memory.working_set_bytes.value),
            size(item.writable_layer.used_bytes.value),
            str(item.writable_layer.inodes_used.value),
        )
        for item in found
    ]
    print_table(("CONTAINER", "NAME", "CPU", "MEMORY", "DISK", "INODES"), rows)


def _stats(connection: Connection) -> list[api_pb2.ContainerStats]:
    return list(connection.runtime.ListContainerStats(api_pb2.ListContainerStatsRequest()).stats)


def _cpu(before: Mapping[str, api_pb2.ContainerStats], now: api_pb2.ContainerStats) -> str:
    """Give the share of one processor used between two moments; empty for what was not there at the first."""
    then = before.get(now.attributes.id)
    passed = now.cpu.timestamp - then.cpu.timestamp if then is not None else 0
    if then is None or passed <= 0:
        return ""
    used = now.cpu.usage_core_nano_seconds.value - then.cpu.usage_core_nano_seconds.value
    return f"{100 * used / passed:.1f}%"


@click.command()
@output_option
@connected
def events(connection: Connection, output: str) -> None:
    """Show what happens to containers, from now on, until interrupted."""
    for event in connection.runtime.GetContainerEvents(api_pb2.GetEventsRequest()):
        if output == "json":
            print_json(as_dict(event))
            continue
        kind = api_pb2.ContainerEventType.Name(event.container_event_type)
        kind = kind.removeprefix("CONTAINER_").removesuffix("_EVENT").lower()
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(event.created_at / 1e9))
        pod = event.pod_sandbox_status.metadata.name
        click.echo(f"{moment}  {kind:<8}  {short(event.container_id)}  {pod}")
