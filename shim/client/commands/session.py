"""exec: a command inside a running container."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from shim.client.context import connected
from shim.client.errors import ClientError
from shim.client.find import find_container
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from shim.client.connection import Connection

NO_STREAMING = "-i and -t need an interactive session, which this version of wherry cannot open; leave them out"


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("-i", "--interactive", is_flag=True, help="Connect standard input (not available yet).")
@click.option("-t", "--tty", is_flag=True, help="Use a terminal (not available yet).")
@click.option("--timeout", type=click.IntRange(min=0), default=0, metavar="SECONDS", help="End it after so long; 0: never.")
@click.argument("container")
@click.argument("command", nargs=-1, required=True)
@connected
def exec_command(
    connection: Connection, interactive: bool, tty: bool, timeout: int, container: str, command: tuple[str, ...]
) -> None:
    """Run COMMAND in a running CONTAINER, print its output and end with its exit code."""
    if interactive or tty:
        raise ClientError(NO_STREAMING)
    found = find_container(connection, container)
    request = api_pb2.ExecSyncRequest(container_id=found.id, cmd=command, timeout=timeout)
    response = connection.runtime.ExecSync(request)
    sys.stdout.buffer.write(response.stdout)
    sys.stdout.flush()
    sys.stderr.buffer.write(response.stderr)
    sys.stderr.flush()
    sys.exit(response.exit_code)
