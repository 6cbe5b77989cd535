"""logs: what a container has written, and what it writes."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import grpc

from shim.client import logfile
from shim.client.context import connected
from shim.client.errors import ClientError
from shim.client.find import find_container
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shim.client.connection import Connection


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on until the container ends.")
@click.option("-n", "--tail", "count", type=click.IntRange(min=0), default=None, help="Begin with the last so many lines.")
@click.option("-t", "--timestamps", is_flag=True, help="Put its time before each line.")
@click.option("--since", default="", metavar="TIME", help="Only lines since a time (RFC 3339) or an age (90s, 1h30m).")
@click.argument("container")
@connected
def logs(connection: Connection, follow: bool, count: int | None, timestamps: bool, since: str, container: str) -> None:
    """Print the log of a container; it is read from the log file, so that this works on the container's own node only."""
    start = _start(since)
    found = find_container(connection, container)
    status = connection.runtime.ContainerStatus(api_pb2.ContainerStatusRequest(container_id=found.id)).status
    path = str(status.log_path)
    if not path:
        raise ClientError(f"container {container} has no log: it was made without a log path")
    if not os.path.isdir(os.path.dirname(path)):
        raise ClientError(f"cannot read {path}: it is not on this machine")
    with suppress(KeyboardInterrupt):
        present = logfile.since(logfile.read(path), start)
        if not follow:
            write(present if count is None else logfile.tail(present, count), timestamps=timestamps)
            return
        _follow(connection, found.id, path, (start, count, timestamps))


def _start(since: str) -> datetime | None:
    if not since:
        return None
    try:
        return logfile.parse_since(since, datetime.now(UTC))
    except ValueError:
        raise click.BadParameter(f"{since!r} is neither a time nor a duration", param_hint="--since") from None


def _follow(connection: Connection, container: str, path: str, chosen: tuple[datetime | None, int | None, bool]) -> None:
    start, count, timestamps = chosen
    lines = logfile.since(logfile.follow(path, lambda: is_running(connection, container)), start)
    if count is not None:
        present = list(logfile.since(logfile.read(path), start))
        kept = list(logfile.tail(present, count))
        write(kept, timestamps=timestamps)
        for _line in present:
            next(lines, None)
    write(lines, timestamps=timestamps)


def is_running(connection: Connection, container: str) -> bool:
    """Say whether a container may still write; a removed one may not."""
    request = api_pb2.ContainerStatusRequest(container_id=container)
    try:
        state = connection.runtime.ContainerStatus(request).status.state
    except grpc.RpcError as error:
        if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.NOT_FOUND:
            return False
        raise
    return bool(state in {api_pb2.CONTAINER_CREATED, api_pb2.CONTAINER_RUNNING})


def write(lines: Iterable[logfile.Line], *, timestamps: bool = False) -> None:
    """Write lines where they were written: standard output or standard error."""
    fresh = True
    for line in lines:
        target = sys.stdout if line.stream == "stdout" else sys.stderr
        prefix = f"{line.time} ".encode() if timestamps and fresh else b""
        target.buffer.write(prefix + line.text)
        target.flush()
        fresh = line.whole
