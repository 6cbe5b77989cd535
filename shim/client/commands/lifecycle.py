"""stop and rm: the end of containers and pods."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import click

from shim.client import find
from shim.client.context import connected
from shim.client.errors import ClientError
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from shim.client.connection import Connection

GRACE = 10
"""Seconds between the stop signal and SIGKILL when nobody says otherwise."""


@click.command()
@click.option("-t", "--time", "grace", type=click.IntRange(min=0), default=GRACE, show_default=True, help="Seconds of grace.")
@click.argument("names", nargs=-1, required=True, metavar="POD|CONTAINER...")
@connected
def stop(connection: Connection, grace: int, names: tuple[str, ...]) -> None:
    """Stop containers, or pods with everything in them.

    Each process gets its stop signal first, and SIGKILL when it has not ended after the seconds of grace.
    """
    for name in names:
        stop_target(connection, find.find(connection, name), grace)
        click.echo(name)


@click.command("rm")
@click.option("-f", "--force", is_flag=True, help="Also what still runs: stop it first, without grace.")
@click.option("-a", "--all", "everything", is_flag=True, help="All pods.")
@click.argument("names", nargs=-1, metavar="POD|CONTAINER...")
@connected
def remove(connection: Connection, force: bool, everything: bool, names: tuple[str, ...]) -> None:
    """Remove containers, or pods with everything in them; also the logs of those that `wherry run` made."""
    if bool(names) == everything:
        raise click.UsageError("name what to remove, or give --all")
    for name in [pod.id for pod in find.pods(connection)] if everything else names:
        target = find.find(connection, name)
        if not force:
            _refuse_running(connection, target, name)
        remove_target(connection, target)
        click.echo(name)


def stop_target(connection: Connection, target: find.Target, grace: int) -> None:
    """Stop a container, and its pod when the two are one, or a pod with all its containers."""
    if target.container is not None:
        _stop(connection, target.container.id, grace)
    if target.whole_pod:
        for container in find.containers(connection, pod=target.pod.id, running=True):
            _stop(connection, container.id, grace)
        connection.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=target.pod.id))


def remove_target(connection: Connection, target: find.Target) -> None:
    """Remove a container, and its pod when the two are one, or a pod with all its containers; nothing gets grace."""
    if not target.whole_pod:
        assert target.container is not None  # the other case of whole_pod
        connection.runtime.RemoveContainer(api_pb2.RemoveContainerRequest(container_id=target.container.id))
        return
    stop_target(connection, target, 0)
    connection.runtime.RemovePodSandbox(api_pb2.RemovePodSandboxRequest(pod_sandbox_id=target.pod.id))
    logs = target.pod.annotations.get(find.LOGS_ANNOTATION)
    if logs:
        shutil.rmtree(logs, ignore_errors=True)


def _stop(connection: Connection, container: str, grace: int) -> None:
    connection.runtime.StopContainer(api_pb2.StopContainerRequest(container_id=container, timeout=grace))


def _refuse_running(connection: Connection, target: find.Target, name: str) -> None:
    running = find.containers(connection, pod=target.pod.id, running=True)
    if not target.whole_pod:
        running = [container for container in running if container == target.container]
    if running:
        names = ", ".join(container.metadata.name for container in running)
        raise ClientError(f"{name} still runs ({names}); stop it first, or give --force")
