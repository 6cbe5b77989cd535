"""exec and attach: a command inside a running container, and the container's own process."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from shim.client import streams
from shim.client.context import connected
from shim.client.errors import ClientError
from shim.client.find import find_container
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from shim.client.connection import Connection


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("-i", "--interactive", is_flag=True, help="Connect standard input.")
@click.option("-t", "--tty", is_flag=True, help="Use a terminal.")
@click.option("--timeout", type=click.IntRange(min=0), default=0, metavar="SECONDS", help="End it after so long; 0: never.")
@click.argument("container")
@click.argument("command", nargs=-1, required=True)
@connected
def exec_command(
    connection: Connection, interactive: bool, tty: bool, timeout: int, container: str, command: tuple[str, ...]
) -> None:
    """Run COMMAND in a running CONTAINER, print its output and end with its exit code."""
    if timeout and (interactive or tty):
        raise click.UsageError("--timeout cannot be given with -i or -t")
    found = find_container(connection, container)
    if timeout:
        sys.exit(_run_to_its_end(connection, found.id, command, timeout))
    request = api_pb2.ExecRequest(container_id=found.id, cmd=command, stdin=interactive, stdout=True, stderr=not tty, tty=tty)
    url = str(connection.runtime.Exec(request).url)
    sys.exit(streams.run(streams.Session(url=url, stdin=interactive, tty=tty)))


def _run_to_its_end(connection: Connection, container: str, command: tuple[str, ...], timeout: int) -> int:
    request = api_pb2.ExecSyncRequest(container_id=container, cmd=command, timeout=timeout)
    response = connection.runtime.ExecSync(request)
    sys.stdout.buffer.write(response.stdout)
    sys.stdout.flush()
    sys.stderr.buffer.write(response.stderr)
    sys.stderr.flush()
    return int(response.exit_code)


@click.command()
@click.option("--no-stdin", is_flag=True, help="Only watch: send nothing.")
@click.argument("container")
@connected
def attach(connection: Connection, no_stdin: bool, container: str) -> None:
    """Connect to the process of a running CONTAINER, until it ends or Ctrl-P Ctrl-Q is typed on its terminal.

    `wherry attach` ends with the exit code of the process. A container made without -i takes no input.
    """
    found = find_container(connection, container)
    config, terminal = _shape(connection, found.id)
    stdin = not no_stdin and bool(config.get("stdin"))
    if not attach_to(connection, found.id, stdin=stdin, tty=terminal):
        click.echo(f"detached; {container} goes on", err=True)
        return
    sys.exit(exit_code(connection, found.id))


def _shape(connection: Connection, container: str) -> tuple[dict[str, Any], bool]:
    """Give the container's configuration and whether it has a terminal, as verbose status tells them."""
    request = api_pb2.ContainerStatusRequest(container_id=container, verbose=True)
    try:
        info = json.loads(connection.runtime.ContainerStatus(request).info["info"])
        return dict(info["config"]), bool(info["config"].get("tty", False))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ClientError(f"the daemon does not tell whether container {container[:12]} has a terminal") from error


def attach_to(connection: Connection, container: str, *, stdin: bool, tty: bool, started: bool = True) -> bool:
    """Join a container's streams until it ends; False when the user has detached. With `started` false start it first."""
    request = api_pb2.AttachRequest(container_id=container, stdin=stdin, stdout=True, stderr=not tty, tty=tty)
    url = str(connection.runtime.Attach(request).url)

    def start() -> None:
        if not started:
            connection.runtime.StartContainer(api_pb2.StartContainerRequest(container_id=container))

    session = streams.Session(url=url, stdin=stdin, tty=tty, detachable=True)
    return streams.run(session, when_joined=start) is not None


def exit_code(connection: Connection, container: str) -> int:
    """Give the exit code of a container; 0 for one that still runs."""
    request = api_pb2.ContainerStatusRequest(container_id=container)
    return int(connection.runtime.ContainerStatus(request).status.exit_code)
